-- Of which clips are the teachers least certain?
-- The clips with the highest mean entropy of their views (nats), what most of their views say first, and how
-- much the entropy differs from view to view.
-- $limit = 20: how many clips to show, the least certain first
SELECT
    clip,
    path,
    round(avg(entropy), 3) AS mean_entropy,
    round(max(entropy) - min(entropy), 3) AS spread,
    mode(top1) AS mostly,
    round(avg(top1_probability)::DOUBLE, 3) AS top1_probability
FROM views JOIN clips USING (clip)
GROUP BY clip, path
ORDER BY mean_entropy DESC, clip
LIMIT $limit
