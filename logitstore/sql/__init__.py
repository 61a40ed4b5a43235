"""SQL that users give: it can reach nothing but the tables it is about, and take no more than its limits."""
