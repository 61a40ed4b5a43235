"""The report: one page that shows what a store holds and how its students learnt. A part of the page is one file.

A file of this package that says ``PART = {"place": 35, "class": "Name"}`` is a part: ``Name`` is a
:class:`logitstore.jobs.report.page.Part`, which sees all views of the store go by once, a range of clips at a time, and
then says what is to be shown. Parts stand in the order of ``place``: up to 99 what a store holds, from 100 runs.
"""
