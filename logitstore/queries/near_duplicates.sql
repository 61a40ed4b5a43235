-- Which clips do the teachers hear as nearly the same?
-- Pairs of clips with the nearest answers: other encodings or cuts of one recording, often of one scene. Compared are
-- clips whose two likeliest classes are the same, each with those that come next in the order of the likeliest one's
-- probability. distance is the Hellinger-like distance of the mean answers over the views: the root of the sum over
-- classes of (sqrt p - sqrt q)², halved; 0 is the same. A class that a view does not keep counts as 0 in it, so a small
-- k makes clips alike that differ in faint classes only. Views differ at random, so few views make it coarse.
-- $neighbours = 3: with how many of the next clips each is compared
-- $limit = 20: how many pairs to show, the nearest first
WITH
    totals AS (
        SELECT clip, class_index, sum(probability::DOUBLE) AS total FROM topk GROUP BY clip, class_index
    ),
    seen AS (SELECT clip, count(*) AS views, mode(top1) AS mostly FROM views GROUP BY clip),
    heads AS (
        SELECT clip, arg_max(class_index, total, 2) AS two, max(total) AS most, sum(total) AS mass
        FROM totals
        GROUP BY clip
    ),
    numbered AS (
        SELECT clip, two, row_number() OVER (PARTITION BY two ORDER BY most / views, clip) AS place
        FROM heads JOIN seen USING (clip)
    ),
    pairs AS (
        SELECT least(a.clip, b.clip) AS clip, greatest(a.clip, b.clip) AS other
        FROM numbered a JOIN numbered b ON a.two = b.two AND b.place > a.place AND b.place <= a.place + $neighbours
    ),
    common AS (
        SELECT pairs.clip, other, sum(sqrt(a.total * b.total)) AS shared
        FROM pairs
            JOIN totals a ON a.clip = pairs.clip
            JOIN totals b ON b.clip = other AND b.class_index = a.class_index
        GROUP BY pairs.clip, other
    ),
    nearest AS (
        SELECT
            common.clip,
            other,
            sqrt(greatest(0, m.mass / u.views + n.mass / v.views - 2 * shared / sqrt(u.views * v.views)) / 2) AS distance
        FROM common
            JOIN heads m ON m.clip = common.clip
            JOIN heads n ON n.clip = other
            JOIN seen u ON u.clip = common.clip
            JOIN seen v ON v.clip = other
        ORDER BY distance, common.clip, other
        LIMIT $limit
    )
SELECT nearest.clip, c.path, other, d.path AS other_path, mostly, round(distance, 4) AS distance
FROM nearest JOIN seen ON seen.clip = nearest.clip JOIN clips c ON c.clip = nearest.clip JOIN clips d ON d.clip = other
ORDER BY nearest.distance, nearest.clip, other
