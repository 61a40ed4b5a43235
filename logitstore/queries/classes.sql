-- Which classes do the teachers hear, in how many views, and how sure are they?
-- A class counts where it is the most probable one of a view.
SELECT class, count(*) AS views, count(DISTINCT clip) AS clips, round(avg(probability), 3) AS mean_probability
FROM topk
WHERE rank = 1
GROUP BY class
ORDER BY views DESC, class
