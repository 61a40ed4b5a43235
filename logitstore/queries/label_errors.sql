-- Which labels are probably wrong?
-- Clips with labels, ranked by how much better the teachers' answers to a clip fit a label that it has not than one that
-- it has. What fits a label is learnt from the other clips that have it, so labels need not be the teachers' classes: the
-- answer to a clip, its classes weighted by the square root of their mean probability over its views, is held against the
-- mean answers of the clips that have a label and of those that have not (naive Bayes; a clip never counts for itself).
-- score is the difference in nats: above 0 the other label, which is suggested, fits better. answer is the class of the
-- highest mean probability, which is its confidence; disagreement is the share of views where another class comes first.
-- A label needs a few clips to be learnt from, and most of its labels right. Listen before you believe it.
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
    labels AS (
        SELECT trim(label) AS label, row_number() OVER (ORDER BY trim(label))::INTEGER AS number
        FROM cells
        WHERE trim(label) <> ''
        GROUP BY trim(label)
    ),
    claims AS (
        SELECT DISTINCT clip, number
        FROM cells JOIN labels ON labels.label = trim(cells.label)
        WHERE clip IN (SELECT clip FROM views)
    ),
    sizes AS (SELECT number, count(*) AS clips FROM claims GROUP BY number),
    whole AS (SELECT count(DISTINCT clip) AS every FROM claims),
    said AS (
        SELECT
            clip,
            list(class_index) AS classes,
            list(sqrt(probability)) AS roots,
            sum(sqrt(probability)) AS whole,
            any_value(class) FILTER (WHERE rank = 1) AS answer,
            max(probability) AS confidence,
            list(class_index) FILTER (WHERE rank <= 5) AS strongest,
            list(probability) FILTER (WHERE rank <= 5) AS strengths
        FROM answers
        WHERE clip IN (SELECT clip FROM claims)
        GROUP BY clip
    ),
    heard AS (SELECT clip, unnest(classes) AS class_index, unnest(roots) / whole AS weight FROM said),
    everywhere AS (
        SELECT class_index, sum(weight) / any_value(every) AS share FROM heard CROSS JOIN whole GROUP BY class_index
    ),
    claimed AS (
        SELECT clip, number, unnest(classes) AS class_index, unnest(roots) / whole AS weight
        FROM claims JOIN said USING (clip)
    ),
    -- the weight of a class in a label's clips, in units of what the mean clip has of it
    profiles AS (
        SELECT number, class_index, sum(weight) / any_value(share) AS mass, any_value(share) AS share
        FROM claimed JOIN everywhere USING (class_index)
        GROUP BY number, class_index
    ),
    own AS (
        SELECT
            clip,
            number,
            sum(weight * ln((1 + greatest(0, mass - weight / share)) * (1 + every) / (1 + greatest(0, every - mass))))
                AS likelihood
        FROM claimed JOIN profiles USING (number, class_index) CROSS JOIN whole
        GROUP BY clip, number
    ),
    alone AS (
        SELECT clip, sum(weight * ln(1 + greatest(0, every - weight / share))) AS nowhere
        FROM heard JOIN everywhere USING (class_index) CROSS JOIN whole
        GROUP BY clip
    ),
    -- the few labels that a clip's strongest classes speak for: only these are tried on it
    near AS (
        SELECT class_index, number, mass / clips AS lift
        FROM profiles JOIN sizes USING (number)
        QUALIFY row_number() OVER (PARTITION BY class_index ORDER BY lift DESC, number) <= 10
    ),
    votes AS (
        SELECT clip, number, sum(sqrt(strength) * ln(1 + lift)) AS votes
        FROM (SELECT clip, unnest(strongest) AS class_index, unnest(strengths) AS strength FROM said)
            JOIN near USING (class_index)
            ANTI JOIN claims USING (clip, number)
        GROUP BY clip, number
    ),
    candidates AS (SELECT clip, unnest(arg_max(number, votes - 1e-9 * number, 3)) AS number FROM votes GROUP BY clip),
    tried AS (
        SELECT clip, number, unnest(classes) AS class_index, unnest(roots) / whole AS weight
        FROM candidates JOIN said USING (clip)
    ),
    others AS (
        SELECT
            clip,
            number,
            sum(weight * ln((1 + mass) * (1 + every - weight / share) / (1 + greatest(0, every - mass - weight / share))))
                AS likelihood
        FROM tried JOIN profiles USING (number, class_index) CROSS JOIN whole
        GROUP BY clip, number
    ),
    worst AS (
        SELECT clip, arg_min(number, fit) AS number, min(fit) AS fit
        FROM (
            SELECT clip, number, likelihood - ln(1 + every) + ln(1 + every - clips) - ln(clips) AS fit
            FROM own JOIN sizes USING (number) CROSS JOIN whole
        )
        GROUP BY clip
    ),
    best AS (
        SELECT clip, arg_max(number, fit) AS number, max(fit) AS fit
        FROM (
            SELECT clip, number, likelihood - nowhere + ln(every - clips) - ln(1 + clips) AS fit
            FROM others JOIN alone USING (clip) JOIN sizes USING (number) CROSS JOIN whole
        )
        GROUP BY clip
    ),
    ranked AS (
        SELECT clip, worst.number, best.number AS suggested, best.fit - worst.fit AS score
        FROM worst JOIN best USING (clip)
        ORDER BY score DESC, clip
        LIMIT $limit
    ),
    seen AS (
        SELECT clip, avg((top1 <> answer)::INT) AS disagreement
        FROM views JOIN ranked USING (clip) JOIN said USING (clip)
        GROUP BY clip
    )
SELECT
    clip,
    path,
    given.label,
    other.label AS suggested,
    round(score, 4) AS score,
    answer,
    round(confidence, 3) AS confidence,
    round(disagreement, 3) AS disagreement
FROM ranked
    JOIN said USING (clip)
    JOIN seen USING (clip)
    JOIN clips USING (clip)
    JOIN labels given ON given.number = ranked.number
    JOIN labels other ON other.number = ranked.suggested
ORDER BY ranked.score DESC, clip
