-- How many clips and hours has each label, and what do the teachers hear there?
-- For every label: its clips, their hours, how many of them have no targets, and the class that is the likeliest in most
-- of them (by the mean probability over the views), with the share of its clips where it is, and its mean probability.
-- "$label" = label: the column of clips that holds labels: a text, several with a separator, or a list
-- $separator = ;: what separates the labels of a text
-- $limit = 100: how many labels to show, the most frequent first
WITH
    cells AS (
        SELECT
            clip,
            CASE WHEN rate > 0 THEN length / rate / 3600 ELSE 0 END AS hours,
            unnest(coalesce(TRY_CAST("$label"::VARCHAR AS VARCHAR[]), string_split("$label"::VARCHAR, $separator))) AS label
        FROM clips
    ),
    claims AS (SELECT DISTINCT clip, hours, trim(label) AS label FROM cells WHERE trim(label) <> ''),
    said AS (SELECT clip, class AS answer, probability AS confidence FROM answers WHERE rank = 1),
    counts AS (
        SELECT
            label,
            answer,
            count(*) AS clips,
            sum(hours) AS hours,
            avg(confidence) AS confidence,
            row_number() OVER (PARTITION BY label ORDER BY answer IS NULL, count(*) DESC, answer) AS place
        FROM claims LEFT JOIN said USING (clip)
        GROUP BY label, answer
    )
SELECT
    label,
    sum(clips)::BIGINT AS clips,
    round(sum(hours), 4) AS hours,
    coalesce(sum(clips) FILTER (WHERE answer IS NULL), 0)::BIGINT AS without_targets,
    any_value(answer) FILTER (WHERE place = 1) AS mostly,
    round(any_value(clips) FILTER (WHERE place = 1 AND answer IS NOT NULL)
        / nullif(sum(clips) FILTER (WHERE answer IS NOT NULL), 0), 3) AS share,
    round(any_value(confidence) FILTER (WHERE place = 1), 3) AS confidence
FROM counts
GROUP BY label
ORDER BY clips DESC, label
LIMIT $limit
