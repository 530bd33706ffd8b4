/*
 * order.c
 *
 * Every order that a client has asked for is kept as a sorted array of all
 * rows (or of the executing ones), made at its first use and maintained
 * afterwards, so that a page is a binary search and 250 pointers.  A change
 * of many rows at once marks the arrays stale instead: sorting again is
 * cheaper than thousands of insertions.
 */
#include "sandbox.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ORDERS 24

NullOrder	null_order = NULLS_LARGEST;
uint64_t	orders_version = 1;

static Order *orders[MAX_ORDERS];
static int	norders;
static uint64_t uses;

/* The time of a row for sorting; null lies beyond every date. */
int64_t
order_time(const Item *item, Field field, bool descending)
{
	int64_t		t = field == FIELD_CREATED ? item->created : item->modified;
	bool		first;

	if (t != NO_TIME)
		return t;
	first = null_order == NULLS_FIRST || (null_order == NULLS_LARGEST && descending);
	return first == descending ? INT64_MAX : INT64_MIN;
}

static int
compare_times(int64_t a, int64_t b)
{
	return a < b ? -1 : a > b;
}

/* The next character of an id as --collation natural sees it, 0 at its end. */
static int
natural_next(const char **s)
{
	while (**s == '-')
		(*s)++;
	return **s ? tolower((unsigned char) *(*s)++) : 0;
}

/* As ids are sorted, which is not how they are filtered; only equal ids are equal. */
int
order_compare_ids(const char *a, const char *b)
{
	const char *s = a,
			   *t = b;
	int			x,
				y;

	if (!options.natural)
		return strcmp(a, b);
	do
	{
		x = natural_next(&s);
		y = natural_next(&t);
	} while (x == y && x != 0);
	return x != y ? x - y : strcmp(a, b);
}

static int
compare_field(const SortKey *k, const Item *a, const Item *b)
{
	switch (k->field)
	{
		case FIELD_ID:
			return order_compare_ids(a->id, b->id);
		case FIELD_REQUEST:
			return strcmp(a->request_id ? a->request_id : "",
						  b->request_id ? b->request_id : "");
		case FIELD_NAME:
			return a->name == b->name ? 0 : strcmp(interned(a->name), interned(b->name));
		case FIELD_CREATED:
		case FIELD_MODIFIED:
			return compare_times(order_time(a, k->field, k->descending),
								 order_time(b, k->field, k->descending));
		case FIELD_SHUFFLE:
			break;
	}
	return 0;
}

/* A total order: what the keys leave equal is shuffled, but the same way always. */
int
order_compare(const Order *o, const Item *a, const Item *b)
{
	for (int i = 0; i < o->nkeys; i++)
	{
		int			c = compare_field(&o->keys[i], a, b);

		if (c != 0)
			return o->keys[i].descending ? -c : c;
	}
	if (a->shuffle != b->shuffle)
		return a->shuffle < b->shuffle ? -1 : 1;
	return strcmp(a->id, b->id);
}

/* ---- building ---- */

typedef struct SortEntry
{
	uint64_t	prefix;			/* settles most comparisons without a look at the row */
	Item	   *item;
} SortEntry;

static const Order *sorting;

static uint64_t
text_prefix(const char *s)
{
	uint64_t	p = 0;

	for (int i = 0; i < 8; i++)
	{
		p = (p << 8) | (unsigned char) *s;
		if (*s)
			s++;
	}
	return p;
}

static uint64_t
id_prefix(const char *s)
{
	uint64_t	p = 0;

	if (!options.natural)
		return text_prefix(s);
	for (int i = 0; i < 8; i++)
		p = (p << 8) | (uint64_t) natural_next(&s);
	return p;
}

static uint64_t
sort_prefix(const Order *o, const Item *item)
{
	uint64_t	p = item->shuffle;

	if (o->nkeys > 0)
	{
		const SortKey *k = &o->keys[0];

		if (k->field == FIELD_ID)
			p = id_prefix(item->id);
		else if (k->field == FIELD_REQUEST)
			p = text_prefix(item->request_id ? item->request_id : "");
		else if (k->field == FIELD_NAME)
			p = text_prefix(interned(item->name));
		else
			p = (uint64_t) order_time(item, k->field, k->descending) ^ (UINT64_C(1) << 63);
		if (k->descending)
			p = ~p;
	}
	return p;
}

static int
compare_entries(const void *a, const void *b)
{
	const SortEntry *x = a;
	const SortEntry *y = b;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	return order_compare(sorting, x->item, y->item);
}

static bool
belongs(const Order *o, const Item *item)
{
	return !o->executing_only || item->state == STATE_EXECUTING;
}

static void
order_reserve(Order *o, size_t n)
{
	if (n > o->cap)
	{
		o->cap = n + n / 4 + 64;
		o->rows = xrealloc(o->rows, o->cap * sizeof(Item *));
	}
}

/* Fills o with those of the items that belong to it, sorted. */
void
order_fill(Order *o, Item *const *items, size_t nitems)
{
	SortEntry  *entries = xmalloc((nitems + 1) * sizeof(SortEntry));
	size_t		n = 0;

	for (size_t i = 0; i < nitems; i++)
		if (belongs(o, items[i]))
			entries[n++] = (SortEntry) {sort_prefix(o, items[i]), items[i]};
	sorting = o;
	qsort(entries, n, sizeof(SortEntry), compare_entries);
	order_reserve(o, n);
	for (size_t i = 0; i < n; i++)
		o->rows[i] = entries[i].item;
	o->n = n;
	o->stale = false;
	free(entries);
}

/* ---- maintenance ---- */

static size_t
order_position(const Order *o, const Item *item)
{
	size_t		lo = 0,
				hi = o->n;

	while (lo < hi)
	{
		size_t		mid = (lo + hi) / 2;

		if (order_compare(o, o->rows[mid], item) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void
order_insert(Order *o, Item *item)
{
	size_t		at;

	if (o->stale || !belongs(o, item))
		return;
	order_reserve(o, o->n + 1);
	at = order_position(o, item);
	memmove(o->rows + at + 1, o->rows + at, (o->n - at) * sizeof(Item *));
	o->rows[at] = item;
	o->n++;
}

static void
order_remove(Order *o, Item *item)
{
	size_t		at;

	if (o->stale || !belongs(o, item))
		return;
	at = order_position(o, item);
	while (at < o->n && o->rows[at] != item)
		at++;
	if (at == o->n)
	{
		o->stale = true;		/* cannot happen; a rebuild puts it right */
		return;
	}
	memmove(o->rows + at, o->rows + at + 1, (o->n - at - 1) * sizeof(Item *));
	o->n--;
}

void
orders_insert(Item *item)
{
	orders_version++;
	for (int i = 0; i < norders; i++)
		order_insert(orders[i], item);
}

void
orders_remove(Item *item)
{
	orders_version++;
	for (int i = 0; i < norders; i++)
		order_remove(orders[i], item);
}

/*
 * Gives item the contents of fresh, and moves it in the orders where that
 * changes its place.  The caller frees what item held before.
 */
void
orders_replace(Item *item, const Item *fresh)
{
	bool		move[MAX_ORDERS];

	for (int i = 0; i < norders; i++)
	{
		move[i] = belongs(orders[i], item) != belongs(orders[i], fresh) ||
			order_compare(orders[i], item, fresh) != 0;
		if (move[i])
		{
			orders_version++;
			order_remove(orders[i], item);
		}
	}
	*item = *fresh;
	for (int i = 0; i < norders; i++)
		if (move[i])
			order_insert(orders[i], item);
}

void
orders_stale(void)
{
	orders_version++;
	for (int i = 0; i < norders; i++)
		orders[i]->stale = true;
}

/*
 * Makes room for another order.  The one that was least recently used goes:
 * those that a query is at work with never do.
 */
static void
evict(void)
{
	int			oldest = 0;

	for (int i = 1; i < norders; i++)
		if (orders[i]->used < orders[oldest]->used)
			oldest = i;
	orders_version++;
	free(orders[oldest]->rows);
	free(orders[oldest]);
	orders[oldest] = orders[--norders];
}

/* The order with these keys, made or mended if need be. */
Order *
order_get(const SortKey *keys, int nkeys, bool executing_only)
{
	Order	   *o = NULL;

	for (int i = 0; i < norders && o == NULL; i++)
	{
		bool		same = orders[i]->nkeys == nkeys && orders[i]->executing_only == executing_only;

		for (int k = 0; k < nkeys && same; k++)
			same = orders[i]->keys[k].field == keys[k].field &&
				orders[i]->keys[k].descending == keys[k].descending;
		if (same)
			o = orders[i];
	}
	if (o == NULL)
	{
		if (norders == MAX_ORDERS)
			evict();
		o = xmalloc(sizeof(Order));
		memset(o, 0, sizeof(Order));
		for (int k = 0; k < nkeys; k++)
			o->keys[k] = keys[k];
		o->nkeys = nkeys;
		o->executing_only = executing_only;
		o->stale = true;
		orders[norders++] = o;
	}
	if (o->stale)
		order_fill(o, tenant.items, tenant.n);
	o->used = ++uses;
	return o;
}

Order *
order_by(Field field, bool executing_only)
{
	SortKey		key = {field, false};

	return order_get(&key, field == FIELD_SHUFFLE ? 0 : 1, executing_only);
}
