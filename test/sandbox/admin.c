/*
 * admin.c
 *
 * The admin interface under /_sandbox/: what a test does to the tenant
 * behind the back of its clients, and what it asks about them.  README.md
 * describes it.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
bad(Answer *a, const char *why)
{
	cJSON	   *json = cJSON_CreateObject();

	cJSON_AddStringToObject(json, "error", why);
	answer_json(a, 400, json);
}

/* {"<key>": n} */
static void
done(Answer *a, const char *key, double n)
{
	cJSON	   *json = cJSON_CreateObject();

	cJSON_AddNumberToObject(json, key, n);
	answer_json(a, 200, json);
}

/* ---- reading ---- */

static void
dump(Request *r, Answer *a)
{
	const Order *o = order_by(FIELD_ID, false);

	(void) r;
	a->status = 200;
	a->content_type = "application/json";
	a->items = xmalloc((o->n + 1) * sizeof(Blob *));
	for (size_t i = 0; i < o->n; i++)
		a->items[i] = blob_ref(o->rows[i]->json);
	a->nitems = o->n;
}

static void
list_requests(Request *r, Answer *a)
{
	Params		params;
	const char *since;

	params_parse(&params, r->query ? r->query : "", true);
	since = params_get(&params, "since");
	a->status = 200;
	a->content_type = "application/json";
	journal_list(&a->body, since ? strtoull(since, NULL, 10) : 0);
	params_free(&params);
}

static void
clear_requests(Request *r, Answer *a)
{
	(void) r;
	journal_clear();
	limit_reset();
	done(a, "cleared", 1);
}

static void
stats(Request *r, Answer *a)
{
	cJSON	   *json = cJSON_CreateObject();
	char		now[32];

	(void) r;
	journal_stats(json);
	limit_json(cJSON_AddObjectToObject(json, "max_in_10s"));
	cJSON_AddNumberToObject(json, "rows", (double) tenant.n);
	cJSON_AddNumberToObject(json, "executing", (double) order_by(FIELD_ID, true)->n);
	cJSON_AddNumberToObject(json, "events_to_come", life_pending());
	cJSON_AddStringToObject(json, "clock", date_ms(tenant_now(), now));
	answer_json(a, 200, json);
}

/* Do the fields that rows are found by agree with their JSON? */
static void
verify(Request *r, Answer *a)
{
	size_t		wrong = 0,
				bytes = 0;

	(void) r;
	for (size_t i = 0; i < tenant.n; i++)
	{
		cJSON	   *json = item_open(tenant.items[i]);
		Item		fresh;

		memset(&fresh, 0, sizeof(fresh));
		bytes += tenant.items[i]->json->len - 1;
		if (json == NULL)
		{
			wrong++;
			continue;
		}
		item_index(&fresh, json);
		wrong += !item_same_index(&fresh, tenant.items[i]);
		free(fresh.id);
		free(fresh.request_id);
		cJSON_Delete(json);
	}
	a->status = 200;
	a->content_type = "application/json";
	text_printf(&a->body, "{\"rows\":%zu,\"wrong\":%zu,\"bytes\":%zu}", tenant.n, wrong, bytes);
}

/* ---- rows ---- */

/* Adds what is JSON but for its bytes: the query says what they would. */
static void
put_unreadable(const Request *r, Answer *a)
{
	static const char *const keys[] = {
		"accountActivityItemId", "accessRequestId", "created", "modified", "state", "name"
	};
	static const char *const names[] = {"id", "request", "created", "modified", "state", "name"};
	cJSON	   *json = cJSON_CreateObject();
	Params		params;

	params_parse(&params, r->query ? r->query : "", true);
	for (int i = 0; i < 6; i++)
		if (params_get(&params, names[i]))
			cJSON_AddStringToObject(json, keys[i], params_get(&params, names[i]));
	item_put(r->body.data, r->body.len, json);
	done(a, "put", 1);
	cJSON_Delete(json);
	params_free(&params);
}

static const char *
skip_blank(const char *s, const char *end)
{
	while (s < end && (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t'))
		s++;
	return s;
}

/* Puts the objects from s on, separated by commas; -1 at one that is not JSON. */
static long
put_items(const char *s, const char *end, bool array)
{
	long		n = 0;

	while ((s = skip_blank(s, end)) < end && *s != ']')
	{
		const char *after = NULL;
		cJSON	   *json = cJSON_ParseWithLengthOpts(s, (size_t) (end - s), &after, 0);

		if (!cJSON_IsObject(json) || after == NULL || after > end)
		{
			cJSON_Delete(json);
			return -1;
		}
		item_put(s, (size_t) (after - s), json);
		cJSON_Delete(json);
		n++;
		s = skip_blank(after, end);
		if (s < end && array && *s == ',')
			s++;
		else if (!array && s < end)
			return -1;
	}
	return n;
}

/* Raw rows, one or an array; with ?raw=1 the whole body is one, JSON or not. */
static void
post_items(Request *r, Answer *a)
{
	const char *s = r->body.data ? r->body.data : "";
	const char *end = s + r->body.len;
	Params		params;
	bool		raw;
	long		n;

	params_parse(&params, r->query ? r->query : "", true);
	raw = params_get(&params, "raw") != NULL;
	params_free(&params);
	if (raw && r->body.len > 0)
	{
		put_unreadable(r, a);
		return;
	}
	s = skip_blank(s, end);
	n = s < end && *s == '[' ? put_items(s + 1, end, true) : put_items(s, end, false);
	if (n < 0)
		bad(a, "not a JSON object or an array of them (with ?raw=1 any bytes are taken)");
	else
		done(a, "put", (double) n);
}

static void
delete_items(Request *r, Answer *a)
{
	Params		params;
	const char *id;
	Item	   *item;
	int			n = 0;

	params_parse(&params, r->query ? r->query : "", true);
	id = params_get(&params, "id");
	while (id && (item = tenant_find(id)) != NULL)
	{
		tenant_remove(item);
		n++;
	}
	if (id)
		done(a, "deleted", n);
	else
		bad(a, "which? ?id=...");
	params_free(&params);
}

/* Merges keys into a row. */
static void
change_row(Item *item, const cJSON *set, bool touch)
{
	cJSON	   *json = item_open(item);
	const cJSON *v;

	if (json == NULL)
		return;
	cJSON_ArrayForEach(v, set)
		json_set(json, v->string, cJSON_Duplicate(v, 1));
	if (touch)
		json_touch(json, "modified", tenant_now());
	item_save(item, json);
}

/* Changes n rows drawn at random (of those executing, if so wanted). */
static void
change_random(const cJSON *body, long n, bool executing, bool touch, cJSON *ids)
{
	const Order *o = order_by(FIELD_SHUFFLE, executing);
	Item	  **rows;
	size_t		have = o->n;

	if (n > (long) have)
		n = (long) have;
	rows = xmalloc((have + 1) * sizeof(Item *));
	if (have > 0)
		memcpy(rows, o->rows, have * sizeof(Item *));
	if (n > 500)
		orders_stale();
	for (long i = 0; i < n; i++)
	{
		size_t		k = (size_t) i + random_below(&tenant.rng, (uint32_t) (have - (size_t) i));
		Item	   *item = rows[k];

		rows[k] = rows[i];
		change_row(item, cJSON_GetObjectItemCaseSensitive(body, "set"), touch);
		cJSON_AddItemToArray(ids, cJSON_CreateString(item->id));
	}
	free(rows);
}

static void
post_change(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *id = json_text(body, "id");
	bool		touch = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(body, "touch"));
	bool		executing = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "executing"));
	Item	   *item = id ? tenant_find(id) : NULL;
	double		n;
	cJSON	   *json,
			   *ids;

	if (id ? item == NULL : !json_number(body, "n", &n))
	{
		bad(a, "an \"id\" that exists or a number \"n\" is needed");
		cJSON_Delete(body);
		return;
	}
	json = cJSON_CreateObject();
	ids = cJSON_AddArrayToObject(json, "changed");
	if (item)
	{
		cJSON_AddItemToArray(ids, cJSON_CreateString(id));
		change_row(item, cJSON_GetObjectItemCaseSensitive(body, "set"), touch);
	}
	else
		change_random(body, n < 0 || n > 1e8 ? 0 : (long) n, executing, touch, ids);
	answer_json(a, 200, json);
	cJSON_Delete(body);
}

static void
post_add(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	double		n = 1;

	json_number(body, "n", &n);
	if (n < 0 || n > 1e7)
		bad(a, "n is out of range");
	else
	{
		seed_new((long) n, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "moving")));
		done(a, "rows", (double) tenant.n);
	}
	cJSON_Delete(body);
}

/* ---- clock, tokens, limits ---- */

static void
post_advance(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	double		ms = 0;
	cJSON	   *json;
	char		now[32];

	if (!json_number(body, "ms", &ms) || ms < -1e13 || ms > 1e13)
		bad(a, "a number \"ms\" is needed");
	else
	{
		tenant_advance((int64_t) ms);
		life_run();
		json = cJSON_CreateObject();
		cJSON_AddStringToObject(json, "clock", date_ms(tenant_now(), now));
		cJSON_AddNumberToObject(json, "events_to_come", life_pending());
		answer_json(a, 200, json);
	}
	cJSON_Delete(body);
}

static void
post_revoke(Request *r, Answer *a)
{
	(void) r;
	token_revoke_all();
	done(a, "revoked", 1);
}

static void
post_rate(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *form = json_text(body, "retry_after");
	double		n;

	if (json_number(body, "rate", &n))
		options.rate = n < 0 || n > 1e7 ? 0 : (int) n;
	if (json_number(body, "retry_after_s", &n))
		rate_retry_after_s = n < 0 || n > 1e7 ? 0 : (int) n;
	if (form)
		rate_retry_as_date = strcmp(form, "date") == 0;
	if (cJSON_GetObjectItemCaseSensitive(body, "grows"))
		rate_retry_grows = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "grows"));
	done(a, "rate", options.rate);
	cJSON_Delete(body);
}

/* The tenant changes its mind about dates in filters. */
static void
post_dates(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *forms = json_text(body, "forms");

	for (int i = 0; forms && date_forms[i]; i++)
		if (strcmp(forms, date_forms[i]) == 0)
			options.dates = i;
	options.refuse_dates = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "refuse"));
	done(a, "dates", options.dates);
	cJSON_Delete(body);
}

static void
post_latency(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	double		n;

	if (!json_number(body, "ms", &n) || n < 0 || n > 3600000)
		bad(a, "a number \"ms\" is needed");
	else
	{
		options.latency_ms = (int) n;
		done(a, "latency", options.latency_ms);
	}
	cJSON_Delete(body);
}

/* ---- faults ---- */

static void
post_fault(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *error;
	int			id;

	if (fault_add(body, &error, &id))
		done(a, "id", id);
	else
		bad(a, error);
	cJSON_Delete(body);
}

static void
get_faults(Request *r, Answer *a)
{
	cJSON	   *list = cJSON_CreateArray();

	(void) r;
	fault_list(list);
	answer_json(a, 200, list);
}

static void
delete_faults(Request *r, Answer *a)
{
	(void) r;
	fault_clear();
	server_release_hung();
	done(a, "cleared", 1);
}

static const struct
{
	const char *method;
	const char *path;
	void		(*call) (Request *r, Answer *a);
}			calls[] = {
	{"GET", "dump", dump},
	{"GET", "requests", list_requests},
	{"DELETE", "requests", clear_requests},
	{"GET", "stats", stats},
	{"GET", "verify", verify},
	{"POST", "items", post_items},
	{"DELETE", "items", delete_items},
	{"POST", "change", post_change},
	{"POST", "add", post_add},
	{"POST", "advance", post_advance},
	{"POST", "tokens/revoke", post_revoke},
	{"POST", "rate", post_rate},
	{"POST", "latency", post_latency},
	{"POST", "dates", post_dates},
	{"POST", "fault", post_fault},
	{"GET", "fault", get_faults},
	{"DELETE", "fault", delete_faults},
};

void
admin_call(Request *r, Answer *a)
{
	const char *path = r->path + strlen("/_sandbox/");

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (strcmp(calls[i].path, path) == 0 && strcmp(calls[i].method, r->method) == 0)
		{
			calls[i].call(r, a);
			return;
		}
	bad(a, "no such admin call");
	a->status = 404;
}
