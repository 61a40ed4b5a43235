-- Of which clips do the members say different things?
-- The clips with the largest Jensen-Shannon divergence of the members (nats, the mean over views, see
-- @member_measures), what the ensemble mostly says first, and which class they dispute most.
-- needs members: build a store with --keep-members to have what each member said
-- $limit = 20: how many clips to show, the most disputed first
WITH
    by_class AS (
        SELECT clip, class_index, any_value(class) AS class, sum(disagreement) AS apart FROM topk GROUP BY clip, class_index
    ),
    by_clip AS (SELECT clip, sum(apart) AS apart, arg_max(class, apart) AS disputed FROM by_class GROUP BY clip),
    first AS (SELECT clip, count(*) AS views, mode(top1) AS mostly FROM views GROUP BY clip)
SELECT clip, path, round(apart / views, 4) AS member_disagreement, mostly, disputed
FROM by_clip JOIN first USING (clip) JOIN clips USING (clip)
ORDER BY apart / views DESC, clip
LIMIT $limit
