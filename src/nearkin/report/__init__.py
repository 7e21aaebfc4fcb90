"""What a person reads: tables, figures and the page of a study, made from rows alone."""

from nearkin.report.page import write_markdown as write_markdown
from nearkin.report.page import write_page as write_page
