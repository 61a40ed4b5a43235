-- How far apart are the members about each clip?
-- One row a clip: the Jensen-Shannon divergence of the members, the mean over its views and the largest of a view
-- (nats): of a sigmoid ensemble the sum over the stored classes of that of their Bernoulli distributions, of a softmax
-- ensemble that over the stored classes; the class that they dispute most, its share of it, and the view of the largest.
-- needs members: build a store with --keep-members to have what each member said
WITH
    by_class AS (
        SELECT clip, class_index, any_value(class) AS class, sum(disagreement) AS apart FROM topk GROUP BY clip, class_index
    ),
    by_view AS (SELECT clip, view, sum(disagreement) AS apart FROM topk GROUP BY clip, view),
    disputed AS (
        SELECT clip, arg_max(class, apart) AS disputed, max(apart) / nullif(sum(apart), 0) AS share FROM by_class GROUP BY clip
    )
SELECT
    clip,
    round(avg(apart), 4) AS member_disagreement,
    round(max(apart), 4) AS largest,
    arg_max(view, apart) AS view,
    any_value(disputed) AS disputed,
    round(any_value(share), 3) AS share
FROM by_view JOIN disputed USING (clip)
GROUP BY clip
ORDER BY clip
