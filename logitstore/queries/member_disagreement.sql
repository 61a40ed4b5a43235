-- Where do the members of the ensemble disagree?
-- The classes about which the members are furthest apart. disagreement is their Jensen-Shannon divergence about the
-- class (nats; of Bernoulli distributions where scores are sigmoid, else the class's part of it), the mean over the
-- views that hold the class; difference is the highest probability less the lowest, its mean, the largest, and the
-- clip and view where that is.
-- needs members: build a store with --keep-members to have what each member said
-- $limit = 20: how many classes to show, the most disputed first
WITH
    apart AS (
        SELECT clip, view, class_index, max(probability) - min(probability) AS difference
        FROM members
        GROUP BY clip, view, class_index
    ),
    differences AS (
        SELECT
            class_index,
            avg(difference) AS mean_difference,
            max(difference) AS largest,
            arg_max(clip, difference) AS clip,
            arg_max(view, difference) AS view
        FROM apart
        GROUP BY class_index
    ),
    divergences AS (
        SELECT class_index, any_value(class) AS class, count(*) AS views, avg(disagreement) AS disagreement
        FROM topk
        GROUP BY class_index
    )
SELECT
    class,
    views,
    round(disagreement, 5) AS disagreement,
    round(mean_difference, 4) AS mean_difference,
    round(largest::DOUBLE, 4) AS largest,
    clip,
    view
FROM divergences JOIN differences USING (class_index)
ORDER BY divergences.disagreement DESC, class
LIMIT $limit
