-- Where do the members of the ensemble disagree?
-- The classes for which the members' probabilities are furthest apart: the mean over the views that hold the
-- class of the highest less the lowest, the largest such difference, and the clip and view where it is.
-- needs members: build a store with --keep-members to have what each member said
-- $limit = 20: how many classes to show, the most disputed first
WITH apart AS (
    SELECT clip, view, class, max(probability) - min(probability) AS difference
    FROM members
    GROUP BY clip, view, class
)
SELECT
    class,
    count(*) AS views,
    round(avg(difference), 4) AS mean_difference,
    round(max(difference)::DOUBLE, 4) AS largest,
    arg_max(clip, difference) AS clip,
    arg_max(view, difference) AS view
FROM apart
GROUP BY class
ORDER BY mean_difference DESC, class
LIMIT $limit
