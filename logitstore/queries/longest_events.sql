-- How long do the classes sound, and where longest?
-- For every class that is heard in some clip: in how many clips, how many events that is, their mean and longest
-- seconds, and the clip of the longest. An event is a stretch in which the class is at least so likely, of one view.
-- needs frames: build a store with --frames 40 to have when the teachers heard what
-- $view = 0: the view that is looked at
-- $least = 0.5: the probability from which on a class counts as heard
-- $limit = 20: how many classes to show, those with the longest event first
WITH
    begun AS (
        SELECT
            clip,
            class_index,
            class,
            start_s,
            end_s,
            start_s > lag(end_s) OVER (PARTITION BY clip, class_index ORDER BY start_s) AS later
        FROM frames
        WHERE view = $view AND probability >= $least
    ),
    numbered AS (
        SELECT *, count(*) FILTER (WHERE later) OVER (PARTITION BY clip, class_index ORDER BY start_s) AS event
        FROM begun
    ),
    events AS (
        SELECT clip, class_index, any_value(class) AS class, max(end_s) - min(start_s) AS seconds
        FROM numbered
        GROUP BY clip, class_index, event
    ),
    by_class AS (
        SELECT
            any_value(class) AS class,
            count(DISTINCT clip) AS clips,
            count(*) AS events,
            avg(seconds) AS mean_s,
            max(seconds) AS longest_s,
            arg_max(clip, seconds) AS clip
        FROM events
        GROUP BY class_index
    )
SELECT class, clips, events, round(mean_s, 2) AS mean_s, round(longest_s, 2) AS longest_s, clip, path
FROM by_class JOIN clips USING (clip)
ORDER BY longest_s DESC, class
LIMIT $limit
