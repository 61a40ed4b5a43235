-- Which clips are nearly silent?
-- The quietest clips first: level and largest sample (dB below full scale; -150 is digital silence), the share of 10 ms
-- windows below -60 dB, and what the teachers mostly hear there all the same, with its mean probability.
-- needs levels: give --audio-root DIR (in Python: open_store(…, audio_root=DIR)), the audio to measure
-- $below = -50: clips whose rms is below this many dBFS
-- $limit = 20: how many clips to show, the quietest first
WITH
    quiet AS (
        SELECT clip, rms_db, peak_db, silent_share
        FROM levels
        WHERE rms_db < $below
        ORDER BY rms_db, clip
        LIMIT $limit
    ),
    heard AS (
        SELECT clip, mode(top1) AS mostly, avg(top1_probability) AS probability
        FROM views
        WHERE clip IN (SELECT clip FROM quiet)
        GROUP BY clip
    )
SELECT
    clip,
    path,
    round(rms_db, 1) AS rms_db,
    round(peak_db, 1) AS peak_db,
    round(silent_share, 3) AS silent_share,
    mostly,
    round(probability, 3) AS probability
FROM quiet JOIN clips USING (clip) LEFT JOIN heard USING (clip)
ORDER BY quiet.rms_db, clip
