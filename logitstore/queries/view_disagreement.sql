-- Which clips sound like something else from view to view?
-- The clips whose views are furthest from each other, by the Jensen-Shannon divergence of the views (nats, of the
-- stored classes): augmentation destroys there what the teachers go by. What comes first in most views, in how many of
-- them, and another first answer with the view where it is surest.
-- $limit = 20: how many clips to show, those that differ most first
WITH
    seen AS (SELECT clip, mode(top1) AS mostly FROM views GROUP BY clip),
    apart AS (
        SELECT clip, sum(disagreement) AS apart, any_value(views) AS views
        FROM answers
        GROUP BY clip
        ORDER BY apart DESC
        LIMIT $limit
    ),
    others AS (
        SELECT
            clip,
            count(*) FILTER (WHERE top1 = mostly) AS kept,
            arg_max(top1, top1_probability) FILTER (WHERE top1 <> mostly) AS other,
            arg_max(view, top1_probability) FILTER (WHERE top1 <> mostly) AS view
        FROM views JOIN seen USING (clip)
        WHERE clip IN (SELECT clip FROM apart)
        GROUP BY clip
    )
SELECT clip, path, round(apart, 4) AS view_disagreement, mostly, kept, views, other, view
FROM apart JOIN others USING (clip) JOIN seen USING (clip) JOIN clips USING (clip)
ORDER BY apart DESC, clip
