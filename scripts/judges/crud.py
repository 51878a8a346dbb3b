"""Creates, reads, changes, lists and deletes with the client that was generated: `crud.py FOLDER URL`."""

import sys

sys.path.insert(0, sys.argv[1])

from shop_client import Client
from shop_client.api.products import (
    products_create,
    products_delete,
    products_get,
    products_list,
    products_update,
)
from shop_client.api.workflows import restock
from shop_client.models import ProductCreate, ProductUpdate, RestockInput

client = Client(base_url=sys.argv[2], raise_on_unexpected_status=True)
made = products_create.sync(client=client, body=ProductCreate(name="Lamp", price=9.5))
assert (made.name, made.stock) == ("Lamp", 0), made
assert products_get.sync(made.id, client=client).price == 9.5
assert products_update.sync(made.id, client=client, body=ProductUpdate(stock=4)).stock == 4
restock.sync(client=client, body=RestockInput(product_id=made.id, quantity=3))
page = products_list.sync(client=client, limit=2, name="Lamp", pricegte=9.0)
assert [(one.id, one.stock) for one in page.records] == [(made.id, 7)], page
assert products_delete.sync(made.id, client=client).deleted == 1
assert products_get.sync(made.id, client=client).status == 404
