-- Which clips get another first class from one view to the next?
-- Augmentation changes the teachers' minds there: hard clips, or clips of several sounds.
SELECT clip, path, count(DISTINCT top1) AS answers, count(*) AS views, round(avg(top1_probability), 3) AS mean_probability
FROM views JOIN clips USING (clip)
GROUP BY clip, path
HAVING count(DISTINCT top1) > 1
ORDER BY answers DESC, mean_probability, clip
