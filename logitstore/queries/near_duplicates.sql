-- Which clips do the teachers hear as nearly the same?
-- Pairs of clips with the nearest answers: other encodings or cuts of one recording, often of one scene. Compared are
-- clips whose two likeliest classes are the same, each with those that come next in the order of the likeliest one's
-- probability. distance is the Hellinger-like distance of the mean answers over the views: the root of the sum over
-- classes of (sqrt p - sqrt q)², halved; 0 is the same. Views differ at random, so few views make it coarse.
-- $neighbours = 3: with how many of the next clips each is compared
-- $limit = 20: how many pairs to show, the nearest first
WITH
    totals AS (
        SELECT clip, class_index, any_value(class) AS class, sum(probability::DOUBLE) AS total
        FROM topk
        GROUP BY clip, class_index
    ),
    seen AS (SELECT clip, count(*) AS views FROM views GROUP BY clip),
    heads AS (
        SELECT clip, arg_max(class_index, total, 2) AS two, arg_max(class, total) AS answer, max(total) AS most
        FROM totals
        GROUP BY clip
    ),
    numbered AS (
        SELECT clip, two, answer, row_number() OVER (PARTITION BY two ORDER BY most / views, clip) AS place
        FROM heads JOIN seen USING (clip)
    ),
    pairs AS (
        SELECT a.clip, b.clip AS other, a.answer
        FROM numbered a JOIN numbered b ON a.two = b.two AND b.place > a.place AND b.place <= a.place + $neighbours
    ),
    roots AS (SELECT clip, class_index, sqrt(total / views) AS root FROM totals JOIN seen USING (clip)),
    masses AS (SELECT clip, sum(root * root) AS mass FROM roots GROUP BY clip),
    common AS (
        SELECT pairs.clip, other, any_value(answer) AS answer, sum(a.root * b.root) AS shared
        FROM pairs
            JOIN roots a ON a.clip = pairs.clip
            JOIN roots b ON b.clip = other AND b.class_index = a.class_index
        GROUP BY pairs.clip, other
    ),
    nearest AS (
        SELECT common.clip, other, answer, sqrt(greatest(0, m.mass + n.mass - 2 * shared) / 2) AS distance
        FROM common JOIN masses m ON m.clip = common.clip JOIN masses n ON n.clip = other
        ORDER BY distance, common.clip, other
        LIMIT $limit
    )
SELECT nearest.clip, c.path, other, d.path AS other_path, answer, round(distance, 4) AS distance
FROM nearest JOIN clips c ON c.clip = nearest.clip JOIN clips d ON d.clip = other
ORDER BY nearest.distance, nearest.clip, other
