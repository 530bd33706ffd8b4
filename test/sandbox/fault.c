/*
 * fault.c
 *
 * Faults that a test asks for: an answer that is wrong, late, cut off or not
 * given.  The first fault that fits a request and has not run out takes it.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static Fault *faults;
static int	next_id = 1;

static const char *const kinds[] = {
	"status", "close", "hang", "truncate", "oversize", "endless", "garbage", "redirect",
	"slow_body", "slow_headers", "html", "duplicate", "bad_item", "skip_item", "empty_page",
	"no_id", "no_names", "drop_answer", "delay", "late", "page", "answer", "error", NULL
};

/* Errors as the vendor's other services and the gateways before them put them. */
static const struct
{
	const char *shape;
	const char *body;
}			shapes[] = {
	{"name", "{\"errorName\":\"Bad Request\",\"errorMessage\":\"Words under errorMessage.\",\"trackingId\":\"trk-name\"}"},
	{"formatted", "{\"error_code\":\"400\",\"formatted_msg\":\"Words under formatted_msg.\"}"},
	{"problem", "{\"type\":\"about:blank\",\"title\":\"A title\",\"status\":400,\"detail\":\"Words under detail.\"}"},
	{"title", "{\"title\":\"Words under title.\",\"status\":400}"},
	{"string", "\"Words alone.\""},
	{"list", "[{\"locale\":\"de-DE\",\"text\":\"Worte in einer Liste.\"},{\"locale\":\"en-US\",\"text\":\"Words in a list.\"}]"},
	{"messages", "{\"messages\":[{\"text\":\"Words under messages.\"}]}"},
	{"oauth", "{\"error\":\"a_code\",\"error_description\":\"Words under error_description.\"}"},
	{"nested", "{\"error\":{\"code\":400,\"message\":\"Words under error.message.\"}}"},
	{NULL, NULL}
};

static bool
fits(const Fault *f, const Request *r)
{
	if (f->method && strcasecmp(f->method, r->method) != 0)
		return false;
	return f->path == NULL || strstr(r->uri, f->path) != NULL;
}

/* The fault that this request gets, NULL for none; its count goes down. */
Fault *
fault_take(const Request *r)
{
	for (Fault *f = faults; f; f = f->next)
	{
		if (!fits(f, r) || f->count == 0)
			continue;
		if (f->skip > 0)
		{
			f->skip--;
			continue;
		}
		if (f->count > 0)
			f->count--;
		f->hits++;
		f->users++;
		return f;
	}
	return NULL;
}

static void
fault_free(Fault *f)
{
	free(f->method);
	free(f->path);
	free(f->body);
	free(f->shape);
	cJSON_Delete(f->headers);
	free(f);
}

/* The request is through with it. */
void
fault_release(Fault *f)
{
	f->users--;
	if (f->deleted && f->users == 0)
		fault_free(f);
}

void
fault_clear(void)
{
	while (faults)
	{
		Fault	   *f = faults;

		faults = f->next;
		f->deleted = true;
		if (f->users == 0)
			fault_free(f);
	}
}

static bool
is(const Fault *f, const char *kind)
{
	return strcmp(f->kind, kind) == 0;
}

static void
add_headers(const Fault *f, Answer *a)
{
	const cJSON *h;

	cJSON_ArrayForEach(h, f->headers)
	{
		if (cJSON_IsString(h))
			answer_header(a, h->string, h->valuestring);
	}
}

static void
own_body(const Fault *f, Answer *a, const char *fallback, const char *type)
{
	answer_clear(a);
	a->content_type = type;
	text_puts(&a->body, f->body ? f->body : fallback);
}

static void
drop_forbidden_body(Answer *a)
{
	if (a->status == 204)
		answer_clear(a);
}

/* An error in the shape that the tenant gives it, unless a body is given. */
static void
answer_status(const Fault *f, Answer *a)
{
	answer_error(a, f->status ? f->status : 500, "The sandbox was asked for this error.");
	if (f->body)
		own_body(f, a, "", "application/json");
	else if (f->status == 401)
		own_body(f, a, "{\"error\":\"JWT validation failed: JWT is expired\"}", "application/json");
	else if (f->status == 429)
		own_body(f, a, "{\"message\":\" Rate Limit Exceeded \"}", "application/json");
}

static const char *
body_of_shape(const char *shape)
{
	int			i = 0;

	while (shape && shapes[i].shape && strcmp(shapes[i].shape, shape) != 0)
		i++;
	return shape ? shapes[i].body : NULL;
}

static void
answer_shape(const Fault *f, Answer *a)
{
	const char *body = body_of_shape(f->shape);

	a->status = f->status ? f->status : 400;
	own_body(f, a, body ? body : "{}",
			 body && strcmp(f->shape, "problem") == 0 ? "application/problem+json" : "application/json");
}

/*
 * Faults that come instead of the work: true, with the answer made, if the
 * call is not to be carried out.
 */
bool
fault_before(const Fault *f, Request *r, Answer *a)
{
	a->status = f->status ? f->status : 200;
	if (is(f, "close"))
		a->delivery = DELIVER_NOTHING;
	else if (is(f, "hang"))
		a->delivery = DELIVER_NEVER;
	else if (is(f, "status"))
		answer_status(f, a);
	else if (is(f, "html"))
	{
		answer_html(a, f->status ? f->status : 502);
		if (f->body)
			own_body(f, a, "", "text/html");
	}
	else if (is(f, "error"))
		answer_shape(f, a);
	else if (is(f, "garbage"))
		own_body(f, a, "\x01\xff\xfe{[\"not json, not even text", "application/json");
	else if (is(f, "redirect"))
	{
		a->status = f->status ? f->status : 302;
		answer_header(a, "Location", f->body ? f->body : "http://127.0.0.1:1/elsewhere");
		a->content_type = "text/html";
	}
	else if (is(f, "oversize") || is(f, "endless"))
	{
		a->delivery = is(f, "oversize") ? DELIVER_FILLER : DELIVER_ENDLESS;
		a->bytes = f->bytes > 0 ? f->bytes : 64 * 1024 * 1024;
		a->content_type = "application/json";
	}
	else
	{
		a->status = 0;
		return false;
	}
	add_headers(f, a);
	drop_forbidden_body(a);
	if (token_check(r))
		limit_count(r);
	return true;
}

/* The index of a page's item that the fault is for: the middle one if not said. */
static size_t
item_index_of(const Fault *f, const Answer *a)
{
	return f->index >= 0 && (size_t) f->index < a->nitems ? (size_t) f->index : a->nitems / 2;
}

/* Something else instead of the answer, its status kept unless another is asked for. */
static void
replace_answer(const Fault *f, Answer *a)
{
	int			status = f->status ? f->status : a->status;

	if (is(f, "page"))
		answer_html(a, status);
	if (is(f, "answer") || f->body)
		own_body(f, a, "", is(f, "answer") ? "application/json" : "text/html");
	a->status = status;
}

/* Takes the id of an item, or the names of the people in it and below. */
static void
take_id(cJSON *item)
{
	json_set(item, "accountActivityItemId", cJSON_CreateNull());
}

static void
take_names(cJSON *json)
{
	static unsigned turn;
	const char *type = json_text(json, "type");
	const char *id = json_text(json, "id");
	cJSON	   *member;

	if (type && strcmp(type, "IDENTITY") == 0 && json_text(json, "name"))
	{
		Text		name = {0};

		text_puts(&name, turn++ % 2 ? "" : "Could not look up the identity ");
		if (name.len > 0)
			text_puts(&name, id ? id : "(null)");
		json_set(json, "name", cJSON_CreateString(name.data));
		text_free(&name);
	}
	cJSON_ArrayForEach(member, json)
		take_names(member);
}

static void
rewrite_item(Blob **blob, void (*change) (cJSON *item))
{
	/* less the comma before it */
	cJSON	   *json = json_parse((*blob)->data + 1, (*blob)->len - 1);
	char	   *text;

	if (json == NULL)
		return;
	change(json);
	text = cJSON_PrintUnformatted(json);
	if (text)
	{
		blob_unref(*blob);
		*blob = blob_new(text, strlen(text));
	}
	cJSON_free(text);
	cJSON_Delete(json);
}

/* Faults that change an answer. */
void
fault_after(const Fault *f, Answer *a)
{
	if (is(f, "drop_answer"))
		a->delivery = DELIVER_NOTHING;
	else if (is(f, "truncate"))
	{
		a->delivery = DELIVER_PART;
		a->bytes = f->bytes > 0 ? f->bytes : (int64_t) answer_length(a) / 2;
	}
	else if (is(f, "slow_body") || is(f, "slow_headers"))
	{
		a->delivery = is(f, "slow_body") ? DELIVER_SLOWLY : DELIVER_SLOW_HEADERS;
		a->bytes = f->bytes > 0 ? f->bytes : 1;
		a->delay_ms = f->delay_ms > 0 ? f->delay_ms : 1000;
	}
	else if (is(f, "late"))
		a->hold_ms = f->delay_ms;
	else if (is(f, "page") || is(f, "answer"))
		replace_answer(f, a);
	else if (is(f, "bad_item") && a->nitems > 0)
	{
		const char *raw = f->body ? f->body : "{\"accountActivityItemId\":";
		size_t		i = item_index_of(f, a);

		blob_unref(a->items[i]);
		a->items[i] = blob_new(raw, strlen(raw));
	}
	else if (is(f, "duplicate") && a->nitems > 0)
	{
		a->items = xrealloc(a->items, (a->nitems + 1) * sizeof(Blob *));
		a->items[a->nitems] = blob_ref(a->items[f->index >= 0 ? item_index_of(f, a) : 0]);
		a->nitems++;
	}
	else if (is(f, "skip_item") && a->nitems > 0)
	{
		size_t		i = item_index_of(f, a);

		blob_unref(a->items[i]);
		memmove(a->items + i, a->items + i + 1, (a->nitems - i - 1) * sizeof(Blob *));
		a->nitems--;
	}
	else if (is(f, "no_id") && a->nitems > 0)
		rewrite_item(&a->items[item_index_of(f, a)], take_id);
	else if (is(f, "no_names"))
	{
		for (size_t i = 0; i < a->nitems; i++)
			rewrite_item(&a->items[i], take_names);
	}
	else if (is(f, "empty_page") && a->items)
	{
		while (a->nitems > 0)
			blob_unref(a->items[--a->nitems]);
	}
	if (f->status && a->status)
		a->status = f->status;
	add_headers(f, a);
	drop_forbidden_body(a);
}

static int64_t
number_or(const cJSON *spec, const char *key, int64_t otherwise)
{
	double		d;

	if (!json_number(spec, key, &d) || d < -1e15 || d > 1e15)
		return otherwise;
	return (int64_t) d;
}

static char *
text_of(const cJSON *spec, const char *key)
{
	const char *s = json_text(spec, key);

	return s && *s && strcmp(s, "*") != 0 ? xstrdup(s) : NULL;
}

/* false, with the reason, if spec is no fault. */
bool
fault_add(const cJSON *spec, const char **error, int *id)
{
	const char *kind = json_text(spec, "kind");
	Fault	   *f,
			  **end = &faults;
	int			k = 0;

	while (kind && kinds[k] && strcmp(kinds[k], kind) != 0)
		k++;
	*error = "kind must be one of status, close, hang, truncate, oversize, endless, garbage, redirect, "
		"slow_body, slow_headers, html, duplicate, bad_item, skip_item, empty_page, no_id, no_names, drop_answer, delay, late, "
		"page, answer, error";
	if (kind == NULL || kinds[k] == NULL)
		return false;
	*error = "shape must be one of name, formatted, problem, title, string, list, messages, oauth, nested";
	if (json_text(spec, "shape") && body_of_shape(json_text(spec, "shape")) == NULL)
		return false;
	f = xmalloc(sizeof(Fault));
	memset(f, 0, sizeof(Fault));
	f->id = *id = next_id++;
	f->kind = kinds[k];
	f->method = text_of(spec, "method");
	f->path = text_of(spec, "path");
	f->body = json_text(spec, "body") ? xstrdup(json_text(spec, "body")) : NULL;
	f->shape = json_text(spec, "shape") ? xstrdup(json_text(spec, "shape")) : NULL;
	f->skip = number_or(spec, "skip", 0);
	f->count = number_or(spec, "count", 1);
	f->status = (int) number_or(spec, "status", 0);
	f->delay_ms = (int) number_or(spec, "delay_ms", 0);
	f->bytes = number_or(spec, "bytes", 0);
	f->index = (int) number_or(spec, "index", -1);
	if (f->status < 200 || f->status > 599)
		f->status = 0;
	f->headers = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(spec, "headers"), 1);
	while (*end)
		end = &(*end)->next;
	*end = f;
	return true;
}

void
fault_list(cJSON *out)
{
	for (const Fault *f = faults; f; f = f->next)
	{
		cJSON	   *json = cJSON_CreateObject();

		cJSON_AddNumberToObject(json, "id", f->id);
		cJSON_AddStringToObject(json, "kind", f->kind);
		cJSON_AddStringToObject(json, "method", f->method ? f->method : "*");
		cJSON_AddStringToObject(json, "path", f->path ? f->path : "*");
		cJSON_AddNumberToObject(json, "skip", (double) f->skip);
		cJSON_AddNumberToObject(json, "count", (double) f->count);
		cJSON_AddNumberToObject(json, "hits", (double) f->hits);
		cJSON_AddItemToArray(out, json);
	}
}
