-- Which labels are probably wrong?
-- Clips with labels, ranked by how much better the teachers' answers to a clip fit a label that it has not than one that
-- it has. What fits a label is learnt from the other clips that have it, so labels need not be the teachers' classes: an
-- answer, the classes of a clip by the square root of their mean probability over its views, is held against the mean
-- answer of the label's other clips and of one clip of the whole store, by its log-likelihood ratio to the answers of
-- all clips (naive Bayes, each clip left out of its own labels). score is the difference in nats, above 0 where another
-- label fits better; suggested is that label; answer is the class of the highest mean probability, which is its
-- confidence; disagreement is the share of views where another class comes first. Listen before you believe it.
-- "$label" = label: the column of clips that holds labels: a text, several with a separator, or a list
-- $separator = ;: what separates the labels of a text
-- $limit = 40: how many clips to show, the most suspicious first
WITH
    cells AS (
        SELECT
            clip,
            unnest(coalesce(TRY_CAST("$label"::VARCHAR AS VARCHAR[]), string_split("$label"::VARCHAR, $separator))) AS label
        FROM clips
    ),
    totals AS (
        SELECT clip, class_index, any_value(class) AS class, sum(probability::DOUBLE) AS total
        FROM topk
        GROUP BY clip, class_index
    ),
    answers AS (
        SELECT
            clip,
            sum(sqrt(total)) AS whole,
            arg_max(class, total - 1e-9 * class_index) AS answer,
            max(total) AS most,
            arg_max(class_index, total, 3) AS strongest
        FROM totals
        GROUP BY clip
    ),
    claims AS (SELECT DISTINCT clip, trim(label) AS label FROM cells JOIN answers USING (clip) WHERE trim(label) <> ''),
    sizes AS (SELECT label, count(*) AS clips FROM claims GROUP BY label),
    heard AS (
        SELECT clip, class_index, sqrt(total) / whole AS weight
        FROM totals JOIN answers USING (clip)
        WHERE clip IN (SELECT clip FROM claims)
    ),
    everywhere AS (
        SELECT class_index, sum(weight) / (SELECT count(DISTINCT clip) FROM claims) AS share
        FROM heard
        GROUP BY class_index
    ),
    profiles AS (
        SELECT label, class_index, sum(weight) / any_value(share) AS mass
        FROM heard JOIN claims USING (clip) JOIN everywhere USING (class_index)
        GROUP BY label, class_index
    ),
    own AS (
        SELECT
            clip,
            label,
            sum(weight * ln(1 + greatest(0, mass - weight / share))) - ln(any_value(clips)) AS fit
        FROM claims
            JOIN heard USING (clip)
            JOIN everywhere USING (class_index)
            JOIN profiles USING (label, class_index)
            JOIN sizes USING (label)
        GROUP BY clip, label
    ),
    near AS (
        SELECT class_index, label
        FROM profiles JOIN sizes USING (label)
        QUALIFY row_number() OVER (PARTITION BY class_index ORDER BY mass / clips DESC, label) <= 20
    ),
    candidates AS (
        SELECT DISTINCT clip, label
        FROM (SELECT clip, unnest(strongest) AS class_index FROM answers WHERE clip IN (SELECT clip FROM claims))
            JOIN near USING (class_index)
    ),
    others AS (
        SELECT clip, label, sum(weight * ln(1 + mass)) - ln(any_value(clips) + 1) AS fit
        FROM (SELECT * FROM candidates ANTI JOIN claims USING (clip, label))
            JOIN heard USING (clip)
            JOIN profiles USING (label, class_index)
            JOIN sizes USING (label)
        GROUP BY clip, label
    ),
    worst AS (SELECT clip, arg_min(label, fit) AS label, min(fit) AS fit FROM own GROUP BY clip),
    best AS (SELECT clip, arg_max(label, fit) AS label, max(fit) AS fit FROM others GROUP BY clip),
    ranked AS (
        SELECT clip, worst.label, best.label AS suggested, best.fit - worst.fit AS score
        FROM worst JOIN best USING (clip)
        ORDER BY score DESC, clip
        LIMIT $limit
    ),
    seen AS (
        SELECT clip, count(*) AS views, count(*) FILTER (WHERE top1 <> answer) AS changed
        FROM views JOIN answers USING (clip)
        WHERE clip IN (SELECT clip FROM ranked)
        GROUP BY clip
    )
SELECT
    clip,
    path,
    ranked.label,
    suggested,
    round(score, 4) AS score,
    answer,
    round(most / views, 3) AS confidence,
    round(changed / views, 3) AS disagreement
FROM ranked JOIN answers USING (clip) JOIN seen USING (clip) JOIN clips USING (clip)
ORDER BY ranked.score DESC, clip
