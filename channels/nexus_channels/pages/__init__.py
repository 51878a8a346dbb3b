"""Pages for people, which a browser gets from this server alone."""

from nexus_channels.pages.static import PAGES, File, pages

__all__ = ["PAGES", "File", "pages"]
