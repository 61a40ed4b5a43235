-- What did the top k cut off, and what would a smaller k keep?
-- One row for each k up to the store's. last: the mean probability of the k-th class, and in how many views that is
-- still $least or more: below it every class is less likely still. kept: the mean sum of the first k probabilities, and
-- share: what part that is of what is stored. left_out: for softmax scores, the mean probability of all classes beyond k;
-- for sigmoid scores only what is stored beyond k can be told, so it is 0 at the store's own k: look at last there.
-- $least = 0.01: a probability that still matters
WITH
    kind AS (SELECT bool_and(scores = 'sigmoid') AS sigmoid FROM teachers),
    ranks AS (
        SELECT
            rank AS k,
            count(*) AS views,
            sum(probability::DOUBLE) AS total,
            count(*) FILTER (WHERE probability >= $least) AS matter
        FROM topk
        GROUP BY rank
    ),
    sums AS (
        SELECT
            *,
            max(views) OVER () AS every, -- of a store with a quality fewer views keep a k-th class
            sum(total) OVER (ORDER BY k) AS upto,
            sum(total) OVER () AS whole
        FROM ranks
    )
SELECT
    k,
    round(total / every, 5) AS last,
    round(matter / every, 4) AS still_matters,
    round(upto / every, 4) AS kept,
    round(upto / whole, 4) AS share,
    round(greatest(0, CASE WHEN sigmoid THEN whole / every ELSE 1 END - upto / every), 5) AS left_out
FROM sums CROSS JOIN kind
ORDER BY k
