/*
 * item.c
 *
 * Between the JSON of a status item, which is what is kept and served, and
 * the few fields of it that are searched and sorted by.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

/* requestedFor was an array for a while, and some old rows still show it. */
static const cJSON *
first_of(const cJSON *v)
{
	return cJSON_IsArray(v) ? v->child : v;
}

static uint32_t
intern_id(const cJSON *json, const char *key)
{
	return intern(json_text(first_of(cJSON_GetObjectItemCaseSensitive(json, key)), "id"));
}

static void
index_approvals(Item *item, const cJSON *list)
{
	int			n = 0;
	const cJSON *approval;

	item->assigned[0] = item->assigned[1] = 0;
	cJSON_ArrayForEach(approval, list)
	{
		const char *status = json_text(approval, "status");

		if (status && strcmp(status, "PENDING") == 0 && n < 2)
			item->assigned[n++] = intern_id(approval, "currentOwner");
	}
}

/* Fills in everything but json, slot and shuffle. */
void
item_index(Item *item, const cJSON *json)
{
	const char *id = json_text(json, "accountActivityItemId");
	const char *request = json_text(json, "accessRequestId");
	const char *state = json_text(json, "state");
	const char *type = json_text(json, "requestType");

	item->id = xstrdup(id ? id : "");
	item->request_id = request ? xstrdup(request) : NULL;
	item->created = date_parse(json_text(json, "created"), false);
	item->modified = date_parse(json_text(json, "modified"), false);
	item->name = intern(json_text(json, "name"));
	item->wanted = intern(json_text(json, "id"));
	item->requester = intern_id(json, "requester");
	item->requested_for = intern_id(json, "requestedFor");
	index_approvals(item, cJSON_GetObjectItemCaseSensitive(json, "approvalDetails"));
	item->state = STATE_OTHER;
	if (state && strcmp(state, "EXECUTING") == 0)
		item->state = STATE_EXECUTING;
	else if (state && strcmp(state, "PROVISIONING_VERIFICATION_PENDING") == 0)
		item->state = STATE_VERIFYING;
	item->revoke = type && strcmp(type, "REVOKE_ACCESS") == 0;
}

/* For the self-check: do two indexes of the same JSON agree? */
bool
item_same_index(const Item *a, const Item *b)
{
	return strcmp(a->id, b->id) == 0 &&
		strcmp(a->request_id ? a->request_id : "", b->request_id ? b->request_id : "") == 0 &&
		a->created == b->created && a->modified == b->modified && a->name == b->name &&
		a->wanted == b->wanted && a->requester == b->requester &&
		a->requested_for == b->requested_for && a->assigned[0] == b->assigned[0] &&
		a->assigned[1] == b->assigned[1] && a->state == b->state && a->revoke == b->revoke;
}

/* A row that is in no list yet. */
Item *
item_new(const char *json, size_t len)
{
	Item	   *item = xmalloc(sizeof(Item));

	memset(item, 0, sizeof(Item));
	item->json = blob_new(json, len);
	return item;
}

void
item_free(Item *item)
{
	blob_unref(item->json);
	free(item->id);
	free(item->request_id);
	free(item);
}

cJSON *
item_open(const Item *item)
{
	return json_parse(item->json->data + 1, item->json->len - 1);
}

static void
item_replace(Item *item, const char *text, size_t len, const cJSON *json)
{
	Item		old = *item;
	Item		fresh = *item;

	item_index(&fresh, json);
	fresh.json = blob_new(text, len);
	orders_replace(item, &fresh);
	blob_unref(old.json);
	free(old.id);
	free(old.request_id);
}

/* Takes the changed JSON of a listed row back, and frees the tree. */
void
item_save(Item *item, cJSON *json)
{
	char	   *text = cJSON_PrintUnformatted(json);

	if (text)
		item_replace(item, text, strlen(text), json);
	cJSON_free(text);
	cJSON_Delete(json);
}

/*
 * Adds a row, or replaces the one with its id, and keeps the bytes as they
 * came.  json is what they say, as far as it could be read.
 */
void
item_put(const char *raw, size_t len, const cJSON *json)
{
	const char *id = json_text(json, "accountActivityItemId");
	Item	   *item = id && *id ? tenant_find(id) : NULL;

	if (item)
	{
		item_replace(item, raw, len, json);
		return;
	}
	item = item_new(raw, len);
	item_index(item, json);
	item->shuffle = random_next(&tenant.rng);
	tenant_add(item);
}

void
json_set(cJSON *object, const char *key, cJSON *value)
{
	if (cJSON_GetObjectItemCaseSensitive(object, key))
		cJSON_ReplaceItemInObjectCaseSensitive(object, key, value);
	else
		cJSON_AddItemToObject(object, key, value);
}

void
json_touch(cJSON *object, const char *key, int64_t usecs)
{
	char		date[32];

	json_set(object, key, cJSON_CreateString(date_ms(usecs, date)));
}

/* {type, id, name} of an identity, known or not. */
cJSON *
json_identity(const char *id)
{
	const Person *p = person_by_id(id);
	cJSON	   *json = cJSON_CreateObject();

	cJSON_AddStringToObject(json, "type", "IDENTITY");
	cJSON_AddStringToObject(json, "id", id);
	cJSON_AddStringToObject(json, "name", p ? p->name : id);
	return json;
}

/* Sets the state of a phase of an item, its dates and result with it. */
void
json_phase(cJSON *item, const char *name, const char *state, int64_t when)
{
	cJSON	   *phase;

	cJSON_ArrayForEach(phase, cJSON_GetObjectItemCaseSensitive(item, "accessRequestPhases"))
	{
		const char *n = json_text(phase, "name");
		Text		date = {0};

		if (n == NULL || strcmp(n, name) != 0)
			continue;
		text_date(&date, when, DATE_US);
		date.data[date.len - 1] = '\0';
		json_set(phase, "state", cJSON_CreateString(state));
		if (strcmp(state, "EXECUTING") == 0)
			json_set(phase, "started", cJSON_CreateString(date.data + 1));
		else
			json_set(phase, "finished", cJSON_CreateString(date.data + 1));
		if (strcmp(state, "COMPLETED") == 0)
			json_set(phase, "result", cJSON_CreateString("SUCCESSFUL"));
		text_free(&date);
	}
}
