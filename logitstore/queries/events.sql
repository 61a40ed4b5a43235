-- What sounds when in a clip?
-- The events of one view of a clip, by when they begin: stretches in which a class is at least so likely, those of a
-- class that follow one another within the gap as one. Seconds are those of the view, as it was drawn: a roll has moved
-- them.
-- needs frames: build a store with --frames 40 to have when the teachers heard what
-- $clip = 0: the number of the clip
-- $view = 0: the view
-- $least = 0.5: the probability from which on a class counts as heard
-- $gap = 0.2: seconds of silence that an event bridges
WITH
    loud AS (
        SELECT class_index, class, start_s, end_s, probability
        FROM frames
        WHERE clip = $clip AND view = $view AND probability >= $least
    ),
    begun AS (
        SELECT *, start_s > lag(end_s) OVER (PARTITION BY class_index ORDER BY start_s) + $gap AS later
        FROM loud
    ),
    numbered AS (
        SELECT *, count(*) FILTER (WHERE later) OVER (PARTITION BY class_index ORDER BY start_s) AS event
        FROM begun
    )
SELECT
    any_value(class) AS class,
    min(start_s) AS start_s,
    max(end_s) AS end_s,
    round(max(probability)::DOUBLE, 3) AS highest
FROM numbered
GROUP BY class_index, event
ORDER BY start_s, end_s, class
