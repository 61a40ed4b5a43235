-- Which clips make a balanced subset, by what the teachers hear?
-- Up to so many clips of each class, of those where it is the likeliest by the mean probability over the views, the
-- surest first. Classes with few clips give what they have. As a file it is a subset to train on: --out subset.parquet.
-- $clips = 10: how many clips of a class
-- $least = 0.0: the mean probability that the class must have
SELECT clip, path, class, round(answers.probability, 4) AS probability
FROM answers JOIN clips USING (clip)
WHERE rank = 1 AND answers.probability >= $least
QUALIFY row_number() OVER (PARTITION BY class ORDER BY answers.probability DESC, clip) <= $clips
ORDER BY class, answers.probability DESC, clip
