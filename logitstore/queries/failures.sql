-- Which clips have no targets, and why?
-- Every reason for which clips failed, how many did, and the first of them.
-- $limit = 20: how many reasons to show, the most frequent first
SELECT reason, count(*) AS clips, arg_min(path, clip) AS example, min(clip) AS example_clip
FROM failures
GROUP BY reason
ORDER BY clips DESC, reason
LIMIT $limit
