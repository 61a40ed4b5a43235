-- Which classes do the teachers hear?
-- For every class that is stored at all: the views and clips in whose top k it is, the views where it comes
-- first, and its mean and highest probability where it is stored.
-- $limit = 20: how many classes to show, the most frequent first
SELECT
    class,
    count(*) AS views,
    count(DISTINCT clip) AS clips,
    count(*) FILTER (WHERE rank = 1) AS first,
    round(avg(probability)::DOUBLE, 4) AS mean_probability,
    round(max(probability)::DOUBLE, 4) AS highest
FROM topk
GROUP BY class
ORDER BY views DESC, class
LIMIT $limit
