/*
 * tenant.c
 *
 * The tenant's rows and its clock.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

Options		options = {
	.port = 0,
	.rows = 1000,
	.seed = 1,
	.rate = 100,
	.token_ttl = 749,
	.pace_ms = 3000,
	.open_percent = 8,
	.dates = DATES_BARE | DATES_QUOTED,
	.client_secret = "sandbox-secret",
};

Tenant		tenant;

static int64_t advanced_ms;		/* how far the admin has moved the clock */

int64_t
tenant_now(void)
{
	return wall_clock() + advanced_ms * 1000;
}

/*
 * Steps of requests go by the tenant's clock; with --pace 0 only by the part
 * of it that the admin has moved.
 */
int64_t
move_clock_ms(void)
{
	return options.pace_ms > 0 ? steady_ms() + advanced_ms : advanced_ms;
}

void
tenant_advance(int64_t ms)
{
	advanced_ms += ms;
}

void
tenant_add(Item *item)
{
	if (tenant.n == tenant.cap)
	{
		tenant.cap = tenant.cap ? tenant.cap * 2 : 1024;
		tenant.items = xrealloc(tenant.items, tenant.cap * sizeof(Item *));
	}
	item->slot = (uint32_t) tenant.n;
	tenant.items[tenant.n++] = item;
	orders_insert(item);
}

/* Takes the row out and frees it. */
void
tenant_remove(Item *item)
{
	orders_remove(item);
	tenant.n--;
	tenant.items[item->slot] = tenant.items[tenant.n];
	tenant.items[item->slot]->slot = item->slot;
	item_free(item);
}

Item *
tenant_find(const char *id)
{
	Order	   *o = order_by(FIELD_ID, false);
	size_t		lo = 0,
				hi = o->n;

	while (lo < hi)
	{
		size_t		mid = (lo + hi) / 2;

		if (order_compare_ids(o->rows[mid]->id, id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < o->n && strcmp(o->rows[lo]->id, id) == 0 ? o->rows[lo] : NULL;
}

/* The rows of a request: how many, and a copy of their pointers to be freed. */
size_t
tenant_request(const char *request_id, Item ***rows)
{
	Order	   *o = order_by(FIELD_REQUEST, false);
	size_t		lo = 0,
				hi = o->n,
				end;

	*rows = NULL;
	if (request_id == NULL || *request_id == '\0')
		return 0;
	while (lo < hi)
	{
		size_t		mid = (lo + hi) / 2;
		const char *id = o->rows[mid]->request_id;

		if (strcmp(id ? id : "", request_id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (end = lo; end < o->n && strcmp(o->rows[end]->request_id, request_id) == 0;)
		end++;
	*rows = xmalloc((end - lo) * sizeof(Item *));
	if (end > lo)
		memcpy(*rows, o->rows + lo, (end - lo) * sizeof(Item *));
	return end - lo;
}
