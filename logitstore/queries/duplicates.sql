-- Which clips hold the very same sound?
-- Clips whose decoded samples are alike to the last bit, as copies of a file under other names are: how many there are,
-- their numbers and paths, and what they have in common. Silence is alike too: see the level (dBFS). Sounds that are
-- only nearly the same, such as another encoding of one, are for @near_duplicates.
-- needs levels: give --audio-root DIR (in Python: open_store(…, audio_root=DIR)), the audio to compare
-- $limit = 20: how many groups to show, the largest first
SELECT
    count(*) AS clips,
    min(clip) AS first_clip,
    list(clip ORDER BY clip) AS numbers,
    list(path ORDER BY clip) AS paths,
    round(any_value(rms_db), 1) AS rms_db
FROM levels JOIN clips USING (clip)
WHERE audio_digest IS NOT NULL
GROUP BY audio_digest
HAVING count(*) > 1
ORDER BY clips DESC, first_clip
LIMIT $limit
