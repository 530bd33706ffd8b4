/*
 * status.c
 *
 * GET access-request-status: its parameters, and the shortest way to the
 * rows they ask for.  A page by key is a binary search in a sorted array; a
 * narrow condition on another field is gathered from that field's array and
 * sorted; what is left is read through.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <errno.h>

typedef struct Query
{
	Params		params;
	Filter		filter;
	SortKey		keys[MAX_SORT_KEYS];
	int			nkeys;
	bool		executing_only;
	bool		no_one;			/* an identity that no row mentions */
	uint32_t	requested_for;
	uint32_t	requested_by;
	uint32_t	regarding;
	uint32_t	assigned_to;
	uint32_t	self;			/* a token that sees only its own */
	int64_t		limit;
	int64_t		offset;
	bool		count;
	size_t		rotate;			/* where an unsorted page begins */

	/* what was found */
	Item	  **rows;
	size_t		nrows;
	int64_t		total;			/* -1 where not counted */
} Query;

/* ---- parameters ---- */

static bool
read_integer(const char *s, int64_t *value)
{
	char	   *end;

	errno = 0;
	*value = strtoll(s, &end, 10);
	return errno == 0 && end != s && *end == '\0' && (*s == '-' || (*s >= '0' && *s <= '9'));
}

/* limit, offset and count, which all collections share. */
bool
page_params(const Params *p, Answer *a, int64_t *limit, int64_t *offset, bool *count)
{
	const char *s;

	*limit = 250;
	*offset = 0;
	*count = false;
	if ((s = params_get(p, "limit")) && (!read_integer(s, limit) || *limit < 0 || *limit > 250))
	{
		answer_error(a, 400, "limit must be a whole number from 0 to 250");
		return false;
	}
	if ((s = params_get(p, "offset")) && (!read_integer(s, offset) || *offset < 0 || *offset > INT32_MAX))
	{
		answer_error(a, 400, "offset must be a whole number, 0 or more");
		return false;
	}
	if ((s = params_get(p, "count")))
	{
		*count = strcmp(s, "true") == 0;
		if (!*count && strcmp(s, "false") != 0)
		{
			answer_error(a, 400, "count must be true or false");
			return false;
		}
	}
	return true;
}

static bool
read_sorters(Query *q, const char *s, Answer *a)
{
	static const struct
	{
		const char *name;
		Field		field;
	}			known[] = {
		{"created", FIELD_CREATED}, {"modified", FIELD_MODIFIED},
		{"accountActivityItemId", FIELD_ID}, {"name", FIELD_NAME}
	};

	while (s)
	{
		const char *comma = strchr(s, ',');
		size_t		len = comma ? (size_t) (comma - s) : strlen(s);
		bool		descending = len > 0 && *s == '-';
		bool		found = false;

		if (descending)
			s++, len--;
		for (int i = 0; i < 4 && !found; i++)
			if (strlen(known[i].name) == len && strncmp(s, known[i].name, len) == 0 &&
				q->nkeys < MAX_SORT_KEYS)
			{
				q->keys[q->nkeys++] = (SortKey) {known[i].field, descending};
				found = true;
			}
		if (!found)
		{
			answer_error(a, 400, "\"%.*s\" is not a field that can be sorted by", (int) len, s);
			return false;
		}
		s = comma ? comma + 1 : NULL;
	}
	return true;
}

/* An identity of the query; "me" is the caller. */
static uint32_t
read_identity(Query *q, const Request *r, const char *name)
{
	const char *s = params_get(&q->params, name);
	uint32_t	n;

	if (s == NULL)
		return 0;
	if (strcmp(s, "me") == 0)
		s = r->caller.identity;
	n = intern_find(s);
	if (n == 0)
		q->no_one = true;
	return n;
}

static bool
read_identities(Query *q, const Request *r, Answer *a)
{
	q->requested_for = read_identity(q, r, "requested-for");
	q->requested_by = read_identity(q, r, "requested-by");
	q->regarding = read_identity(q, r, "regarding-identity");
	q->assigned_to = read_identity(q, r, "assigned-to");
	q->self = r->caller.self_only ? intern_find(r->caller.identity) : 0;
	if (params_get(&q->params, "regarding-identity") &&
		(params_get(&q->params, "requested-for") || params_get(&q->params, "requested-by")))
	{
		answer_error(a, 400, "regarding-identity excludes requested-for and requested-by");
		return false;
	}
	return true;
}

static bool
read_query(Query *q, const Request *r, Answer *a)
{
	const char *s;

	params_parse(&q->params, r->query ? r->query : "", true);
	if (q->params.bad)
	{
		answer_error(a, 400, "the query string is malformed");
		return false;
	}
	if (!page_params(&q->params, a, &q->limit, &q->offset, &q->count) || !read_identities(q, r, a))
		return false;
	if ((s = params_get(&q->params, "request-state")))
	{
		if (strcmp(s, "EXECUTING") != 0)
		{
			answer_error(a, 400, "request-state can only be EXECUTING");
			return false;
		}
		q->executing_only = true;
	}
	if ((s = params_get(&q->params, "sorters")) && *s && !read_sorters(q, s, a))
		return false;
	if ((s = params_get(&q->params, "filters")) && *s && !filter_parse(&q->filter, s, r->api))
	{
		answer_error(a, 400, "The filter is invalid: %s", q->filter.error);
		return false;
	}
	return true;
}

/* ---- finding ---- */

static bool
matches(const Query *q, const Item *item)
{
	if (q->executing_only && item->state != STATE_EXECUTING)
		return false;
	if (q->self && item->requester != q->self && item->requested_for != q->self)
		return false;
	if ((q->requested_for && item->requested_for != q->requested_for) ||
		(q->requested_by && item->requester != q->requested_by) ||
		(q->regarding && item->requester != q->regarding && item->requested_for != q->regarding))
		return false;
	if (q->assigned_to && item->assigned[0] != q->assigned_to && item->assigned[1] != q->assigned_to)
		return false;
	for (int i = 0; i < q->filter.n; i++)
		if (!pred_match(&q->filter.preds[i], item))
			return false;
	return true;
}

/* Can a condition on this field be found in its order? */
static bool
narrows(const Pred *p, Field field)
{
	if (field == FIELD_ID && options.natural)
		return false;
	return p->field == field && p->op != OP_NE && p->op != OP_IN;
}

/* -1, 0, 1: before, within, behind the part of the order that can match. */
static int
side(const Query *q, const Order *o, const Item *item)
{
	int			result = 0;

	for (int i = 0; i < q->filter.n && result == 0; i++)
		if (narrows(&q->filter.preds[i], o->keys[0].field))
			result = pred_side(&q->filter.preds[i], item, o->keys[0].descending);
	return o->keys[0].descending ? -result : result;
}

static size_t
first_at_least(const Query *q, const Order *o, int wanted, size_t lo)
{
	size_t		hi = o->n;

	while (lo < hi)
	{
		size_t		mid = (lo + hi) / 2;

		if (side(q, o, o->rows[mid]) < wanted)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The part of an order that the conditions on its first key leave. */
static void
range_of(const Query *q, const Order *o, size_t *lo, size_t *hi)
{
	*lo = 0;
	*hi = o->n;
	if (o->nkeys > 0)
	{
		*lo = first_at_least(q, o, 0, 0);
		*hi = first_at_least(q, o, 1, *lo);
	}
}

/* Is the range of that order all that the query asks for? */
static bool
range_is_answer(const Query *q, const Order *o)
{
	if (q->self || q->requested_for || q->requested_by || q->regarding || q->assigned_to)
		return false;
	for (int i = 0; i < q->filter.n; i++)
		if (o->nkeys == 0 || !narrows(&q->filter.preds[i], o->keys[0].field))
			return false;
	return true;
}

static void
keep_row(Query *q, Item *item, size_t *cap)
{
	if (q->nrows == *cap)
	{
		*cap = *cap ? *cap * 2 : 256;
		q->rows = xrealloc(q->rows, *cap * sizeof(Item *));
	}
	q->rows[q->nrows++] = item;
}

static const Order *gather_order;

static int
compare_gathered(const void *a, const void *b)
{
	return order_compare(gather_order, *(Item *const *) a, *(Item *const *) b);
}

/* Sorts what was gathered, drops what is there twice, and cuts the page. */
static void
finish_gathered(Query *q, const Order *o)
{
	size_t		n = 0;

	gather_order = o;
	if (q->nrows > 1)
		qsort(q->rows, q->nrows, sizeof(Item *), compare_gathered);
	for (size_t i = 0; i < q->nrows; i++)
		if (i == 0 || q->rows[i] != q->rows[i - 1])
			q->rows[n++] = q->rows[i];
	q->total = (int64_t) n;
	q->nrows = 0;
	for (size_t i = (size_t) q->offset; i < n && q->nrows < (size_t) q->limit; i++)
		q->rows[q->nrows++] = q->rows[i];
}

/* By ids that are given: few rows, found one by one. */
static bool
gather_by_ids(Query *q, const Order *o)
{
	const Pred *by = NULL;
	size_t		cap = 0;

	for (int i = 0; i < q->filter.n && by == NULL; i++)
		if (q->filter.preds[i].field != FIELD_CREATED &&
			(q->filter.preds[i].op == OP_EQ || q->filter.preds[i].op == OP_IN))
			by = &q->filter.preds[i];
	if (by == NULL)
		return false;
	for (size_t i = 0; i < (by->op == OP_IN ? by->nlist : 1); i++)
	{
		const char *id = by->op == OP_IN ? by->list[i] : by->text;
		Item	  **rows = NULL;
		Item	   *one = by->field == FIELD_ID ? tenant_find(id) : NULL;
		size_t		n = by->field == FIELD_ID ? 0 : tenant_request(id, &rows);

		if (one && matches(q, one))
			keep_row(q, one, &cap);
		for (size_t k = 0; k < n; k++)
			if (matches(q, rows[k]))
				keep_row(q, rows[k], &cap);
		free(rows);
	}
	finish_gathered(q, o);
	return true;
}

/*
 * Is sorting `few` rows of another order cheaper than reading `have` rows of
 * this one until the page is full (to the end where a total is wanted)?
 */
static bool
worth_gathering(const Query *q, size_t few, size_t have)
{
	double		scan_cost = (double) have;

	if (!q->count && few > 0)
		scan_cost *= (double) (q->offset + q->limit) / (double) few;
	if (scan_cost > (double) have)
		scan_cost = (double) have;
	return (double) few * 4 < scan_cost;
}

/* By another order, where its range is far smaller than the one at hand. */
static bool
gather_by_range(Query *q, const Order *o, size_t have)
{
	static const Field fields[] = {FIELD_CREATED, FIELD_ID, FIELD_REQUEST};
	size_t		cap = 0;

	for (int f = 0; f < 3; f++)
	{
		const Order *other;
		bool		usable = false;
		size_t		lo,
					hi;

		for (int i = 0; i < q->filter.n; i++)
			usable = usable || narrows(&q->filter.preds[i], fields[f]);
		if (!usable)
			continue;
		other = order_by(fields[f], q->executing_only);
		range_of(q, other, &lo, &hi);
		if (!worth_gathering(q, hi - lo, have))
			continue;
		for (size_t i = lo; i < hi; i++)
			if (matches(q, other->rows[i]))
				keep_row(q, other->rows[i], &cap);
		finish_gathered(q, o);
		return true;
	}
	return false;
}

/*
 * Windows: the rows between two dates, in another order than by date.  A
 * client reads such a window in many pages, so that the second page sorts it
 * and the others are found in it, as long as no row moves.
 */
#define WINDOWS 16

typedef struct Window
{
	const Order *of;			/* the order that is cut by date */
	size_t		lo;				/* the range of the order by date */
	size_t		hi;
	uint64_t	version;
	bool		filled;
	Order		rows;
} Window;

static Window windows[WINDOWS];

static bool
is_window(const Query *q, const Order *o)
{
	bool		dated = false;

	if (o->nkeys == 0 || o->keys[0].field == FIELD_CREATED || q->self || q->requested_for ||
		q->requested_by || q->regarding || q->assigned_to)
		return false;
	for (int i = 0; i < q->filter.n; i++)
	{
		bool		date = narrows(&q->filter.preds[i], FIELD_CREATED);

		if (!date && !narrows(&q->filter.preds[i], o->keys[0].field))
			return false;
		dated = dated || date;
	}
	return dated;
}

/* The window that a query reads, sorted; NULL at its first page. */
static const Order *
find_window(const Query *q, const Order *o)
{
	static int	turn;
	const Order *dates;
	Window		want = {.of = o,.version = orders_version};
	Window	   *w = NULL;

	if (!is_window(q, o))
		return NULL;
	dates = order_by(FIELD_CREATED, q->executing_only);
	range_of(q, dates, &want.lo, &want.hi);
	want.version = orders_version;
	for (int i = 0; i < WINDOWS && w == NULL; i++)
		if (windows[i].of == o && windows[i].lo == want.lo && windows[i].hi == want.hi &&
			windows[i].version == want.version)
			w = &windows[i];
	if (w == NULL)
	{
		w = &windows[turn++ % WINDOWS];
		free(w->rows.rows);
		*w = want;
		return NULL;
	}
	if (!w->filled)
	{
		memcpy(w->rows.keys, o->keys, sizeof(o->keys));
		w->rows.nkeys = o->nkeys;
		order_fill(&w->rows, dates->rows + want.lo, want.hi - want.lo);
		w->filled = true;
	}
	return &w->rows;
}

/* Reads the range through, to the end only where a total is wanted. */
static void
scan(Query *q, const Order *o, size_t lo, size_t hi, bool all)
{
	size_t		cap = 0;
	size_t		n = hi - lo;
	int64_t		seen = 0;

	for (size_t i = 0; i < n && (all || q->nrows < (size_t) q->limit); i++)
	{
		Item	   *item = o->rows[lo + (i + q->rotate) % n];

		if (!matches(q, item))
			continue;
		if (seen++ >= q->offset && q->nrows < (size_t) q->limit)
			keep_row(q, item, &cap);
	}
	q->total = all ? seen : -1;
}

static void
slice(Query *q, const Order *o, size_t lo, size_t hi)
{
	size_t		cap = 0;
	size_t		n = hi - lo;

	q->total = (int64_t) n;
	for (size_t i = (size_t) q->offset; i < n && q->nrows < (size_t) q->limit; i++)
		keep_row(q, o->rows[lo + (i + q->rotate) % n], &cap);
}

static void
find(Query *q)
{
	const Order *o = order_get(q->keys, q->nkeys, q->executing_only);
	const Order *window;
	size_t		lo,
				hi;

	q->total = 0;
	if (q->no_one || gather_by_ids(q, o))
		return;
	if ((window = find_window(q, o)) != NULL)
	{
		range_of(q, window, &lo, &hi);
		slice(q, window, lo, hi);
		return;
	}
	range_of(q, o, &lo, &hi);
	if (q->nkeys == 0 && hi > lo)
		q->rotate = (size_t) (random_next(&tenant.rng) % (hi - lo));
	if (range_is_answer(q, o))
		slice(q, o, lo, hi);
	else if (!gather_by_range(q, o, hi - lo))
	{
		scan(q, o, lo, hi, q->count);
		if (q->nrows == 0 && q->offset > 0 && q->total < 0)
			scan(q, o, lo, hi, true);
	}
}

/* ---- answering ---- */

/* The tenant refuses an offset at or past a total that fills its pages. */
static bool
past_full_end(const Query *q)
{
	return q->nrows == 0 && q->total > 0 && q->limit > 0 && q->offset >= q->total &&
		q->total % q->limit == 0;
}

static void
answer_page(Query *q, Answer *a)
{
	a->status = 200;
	a->content_type = "application/json";
	a->items = xmalloc((q->nrows + 1) * sizeof(Blob *));
	for (size_t i = 0; i < q->nrows; i++)
		a->items[i] = blob_ref(q->rows[i]->json);
	a->nitems = q->nrows;
	if (q->count)
	{
		Text		total = {0};

		text_printf(&total, "%lld", (long long) q->total);
		answer_header(a, "X-Total-Count", total.data);
		text_free(&total);
	}
}

void
status_list(Request *r, Answer *a)
{
	Query		q;

	memset(&q, 0, sizeof(q));
	if (read_query(&q, r, a))
	{
		find(&q);
		if (past_full_end(&q))
		{
			a->status = 400;
			a->content_type = "application/json";
			text_puts(&a->body, "{\"detailMessage\":\"Specified offset is invalid.\"}");
		}
		else
			answer_page(&q, a);
	}
	free(q.rows);
	filter_free(&q.filter);
	params_free(&q.params);
}
