"""Which tricks help, with evidence: statistics, tables, pictures and a page over finished runs."""
