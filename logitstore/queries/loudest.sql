-- Which clips are the loudest, and which are clipped?
-- Level and largest sample (dB below full scale; above 0 where resampling or a float file went beyond it), the share of
-- samples at 0.999 of full scale or beyond, which tells a recording that was cut off, and what the teachers mostly hear.
-- needs levels: give --audio-root DIR (in Python: open_store(…, audio_root=DIR)), the audio to measure
-- $limit = 20: how many clips to show, the loudest first
WITH
    loud AS (
        SELECT clip, rms_db, peak_db, clipped_share
        FROM levels
        WHERE rms_db IS NOT NULL
        ORDER BY rms_db DESC, clip
        LIMIT $limit
    ),
    heard AS (SELECT clip, mode(top1) AS mostly FROM views WHERE clip IN (SELECT clip FROM loud) GROUP BY clip)
SELECT
    clip,
    path,
    round(rms_db, 1) AS rms_db,
    round(peak_db, 1) AS peak_db,
    round(clipped_share, 5) AS clipped_share,
    mostly
FROM loud JOIN clips USING (clip) LEFT JOIN heard USING (clip)
ORDER BY loud.rms_db DESC, clip
