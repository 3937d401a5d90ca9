"""WebShop in pure Python: `shop = Shop.load(catalogue_dir)`, `episode = shop.episode(goal_index)`, `episode.step("search[red shoes]")`."""

from hiper.suites.webshop.shop import Episode, Shop

__all__ = ["Episode", "Shop"]
