/*
 * create.c
 *
 * POST access-requests: the rules that a body must keep, and the rows that
 * come of it.  The rules are those the vendor documents; a body that breaks
 * one is refused as a whole.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ENTITLEMENTS 25
#define MAX_PEOPLE_WITH_ENTITLEMENTS 10

static bool
refuse(Answer *a, const char *why)
{
	answer_error(a, 400, "%s", why);
	return false;
}

static bool
has(const cJSON *json, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(json, key) != NULL;
}

static bool
is_revoke(const cJSON *body)
{
	const char *type = json_text(body, "requestType");

	return type && strcmp(type, "REVOKE_ACCESS") == 0;
}

static bool
is_entitlement(const cJSON *item)
{
	return strcmp(json_text(item, "type"), "ENTITLEMENT") == 0;
}

/* Absent, null, or text; an empty text counts as text. */
static bool
text_or_null(const cJSON *json, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(json, key);

	return v == NULL || cJSON_IsNull(v) || cJSON_IsString(v);
}

static bool
metadata_valid(const cJSON *json)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json, "clientMetadata");
	const cJSON *v;

	if (metadata == NULL || cJSON_IsNull(metadata))
		return true;
	if (!cJSON_IsObject(metadata))
		return false;
	cJSON_ArrayForEach(v, metadata)
	{
		if (!cJSON_IsString(v))
			return false;
	}
	return true;
}

/* A date that is there must be one, in UTC, and in the future. */
static bool
date_valid(const cJSON *item, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(item, key);
	int64_t		t;
	size_t		len;

	if (v == NULL || cJSON_IsNull(v))
		return true;
	if (!cJSON_IsString(v) || (t = date_parse(v->valuestring, true)) == NO_TIME)
		return false;
	len = strlen(v->valuestring);
	if (v->valuestring[len - 1] != 'Z' && strcmp(v->valuestring + len - 6, "+00:00") != 0)
		return false;
	return t > tenant_now();
}

static bool
item_valid(const cJSON *item, bool revoke, Answer *a)
{
	const char *type = json_text(item, "type");
	const char *id = json_text(item, "id");
	const char *comment = json_text(item, "comment");

	if (!cJSON_IsObject(item))
		return refuse(a, "Each of the requestedItems must be an object.");
	if (type == NULL || (strcmp(type, "ROLE") != 0 && strcmp(type, "ACCESS_PROFILE") != 0 &&
						 strcmp(type, "ENTITLEMENT") != 0))
		return refuse(a, "The type of a requested item must be ACCESS_PROFILE, ROLE or ENTITLEMENT.");
	if (id == NULL || *id == '\0')
		return refuse(a, "A requested item has no id.");
	if (strncmp(id, "unknown-", 8) == 0)
		return refuse(a, "A requested item does not exist.");
	if (!text_or_null(item, "comment") || !text_or_null(item, "assignmentId") ||
		!text_or_null(item, "nativeIdentity"))
		return refuse(a, "A value of a requested item is not text.");
	if (!metadata_valid(item))
		return refuse(a, "clientMetadata must be an object of text values.");
	if (!date_valid(item, "startDate") || !date_valid(item, "removeDate"))
		return refuse(a, "startDate and removeDate must be dates in the future, in UTC.");
	if (revoke && json_text(item, "startDate"))
		return refuse(a, "startDate is not allowed in a REVOKE_ACCESS request.");
	if (revoke && (comment == NULL || *comment == '\0'))
		return refuse(a, "A REVOKE_ACCESS request needs a comment on each item.");
	return true;
}

static bool
items_valid(const cJSON *items, bool revoke, int *entitlements, Answer *a)
{
	const cJSON *item;

	if (!cJSON_IsArray(items) || cJSON_GetArraySize(items) == 0)
		return refuse(a, "requestedItems must be a list of at least one item.");
	cJSON_ArrayForEach(item, items)
	{
		if (!item_valid(item, revoke, a))
			return false;
		*entitlements += is_entitlement(item);
	}
	return true;
}

static bool
identity_valid(const Request *r, const char *id, bool revoke, Answer *a)
{
	if (id == NULL || *id == '\0' || strncmp(id, "unknown-", 8) == 0)
		return refuse(a, "An identity of requestedFor does not exist.");
	if (revoke && strcmp(id, r->caller.identity) == 0)
		return refuse(a, "Nobody can revoke his own access.");
	if (r->caller.self_only && (revoke || strcmp(id, r->caller.identity) != 0))
	{
		answer_error(a, 403, "The caller can request access for himself only.");
		return false;
	}
	return true;
}

/* requestedForWithRequestedItems: each person with items of his own. */
static bool
pairs_valid(const Request *r, const cJSON *body, const cJSON *pairs, int *entitlements, int *people, Answer *a)
{
	const cJSON *pair;

	if (has(body, "requestedFor") || has(body, "requestedItems"))
		return refuse(a, "requestedForWithRequestedItems excludes requestedFor and requestedItems.");
	if (is_revoke(body))
		return refuse(a, "requestedForWithRequestedItems is not supported in a REVOKE_ACCESS request.");
	if (!cJSON_IsArray(pairs) || cJSON_GetArraySize(pairs) == 0)
		return refuse(a, "requestedForWithRequestedItems must be a list of at least one element.");
	cJSON_ArrayForEach(pair, pairs)
	{
		if (!identity_valid(r, json_text(pair, "identityId"), false, a) ||
			!items_valid(cJSON_GetObjectItemCaseSensitive(pair, "requestedItems"), false, entitlements, a))
			return false;
		++*people;
	}
	return true;
}

static bool
lists_valid(const Request *r, const cJSON *body, int *entitlements, int *people, Answer *a)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(body, "requestedFor");
	const cJSON *one;
	bool		revoke = is_revoke(body);

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) == 0)
		return refuse(a, "requestedFor must be a list of at least one identity.");
	cJSON_ArrayForEach(one, list)
	{
		if (!identity_valid(r, cJSON_IsString(one) ? one->valuestring : NULL, revoke, a))
			return false;
		++*people;
	}
	if (revoke && *people > 1)
		return refuse(a, "A REVOKE_ACCESS request is for one identity only.");
	return items_valid(cJSON_GetObjectItemCaseSensitive(body, "requestedItems"), revoke, entitlements, a);
}

static bool
body_valid(const Request *r, const cJSON *body, Answer *a)
{
	const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(body, "requestedForWithRequestedItems");
	const char *type = json_text(body, "requestType");
	int			entitlements = 0,
				people = 0;

	if (!cJSON_IsObject(body))
		return refuse(a, "The body must be a JSON object.");
	if (!text_or_null(body, "requestType") ||
		(type && strcmp(type, "GRANT_ACCESS") != 0 && strcmp(type, "REVOKE_ACCESS") != 0 &&
		 strcmp(type, "MODIFY_ACCESS") != 0))
		return refuse(a, "requestType must be GRANT_ACCESS, REVOKE_ACCESS or MODIFY_ACCESS.");
	if (!metadata_valid(body))
		return refuse(a, "clientMetadata must be an object of text values.");
	if (pairs && !cJSON_IsNull(pairs) ? !pairs_valid(r, body, pairs, &entitlements, &people, a)
		: !lists_valid(r, body, &entitlements, &people, a))
		return false;
	if (entitlements > MAX_ENTITLEMENTS)
		return refuse(a, "At most 25 entitlements can be requested at once.");
	if (entitlements > 0 && people > MAX_PEOPLE_WITH_ENTITLEMENTS)
		return refuse(a, "Entitlements can be requested for at most 10 identities at once.");
	if (is_revoke(body) && entitlements > 1)
		return refuse(a, "At most 1 entitlement can be revoked at once.");
	return true;
}

/* ---- rows ---- */

/* An open request for the same access, listed or not yet. */
static Item *
find_open(const char *requested_for, const char *wanted, bool revoke)
{
	uint32_t	who = intern_find(requested_for);
	uint32_t	what = intern_find(wanted);
	const Order *open;

	if (who == 0 || what == 0)
		return NULL;
	open = order_by(FIELD_ID, true);
	for (size_t i = 0; i < open->n; i++)
		if (open->rows[i]->wanted == what && open->rows[i]->requested_for == who &&
			open->rows[i]->revoke == revoke)
			return open->rows[i];
	return life_find_hidden(who, what, revoke);
}

static cJSON *
new_approval(cJSON *ids)
{
	const char *owner = person(2 + (int) random_below(&tenant.rng, 200))->id;
	cJSON	   *approval = cJSON_CreateObject();
	char		id[33];

	new_id(id);
	cJSON_AddItemToArray(ids, cJSON_CreateString(id));
	cJSON_AddStringToObject(approval, "approvalId", id);
	cJSON_AddFalseToObject(approval, "forwarded");
	cJSON_AddItemToObject(approval, "originalOwner", json_identity(owner));
	cJSON_AddItemToObject(approval, "currentOwner", json_identity(owner));
	cJSON_AddNullToObject(approval, "modified");
	cJSON_AddStringToObject(approval, "status", "PENDING");
	cJSON_AddStringToObject(approval, "scheme", "MANAGER");
	cJSON_AddNullToObject(approval, "errorMessages");
	cJSON_AddNullToObject(approval, "comment");
	cJSON_AddNullToObject(approval, "removeDate");
	cJSON_AddNullToObject(approval, "reviewedBy");
	cJSON_AddArrayToObject(approval, "approverComments");
	cJSON_AddArrayToObject(approval, "forwardHistory");
	return approval;
}

static void
add_phases(cJSON *row)
{
	static const char *const names[] = {"APPROVAL_PHASE", "PROVISIONING_PHASE"};
	static const char *const states[] = {"PENDING", "PENDING"};
	cJSON	   *list = cJSON_AddArrayToObject(row, "accessRequestPhases");

	for (int i = 0; i < 2; i++)
	{
		cJSON	   *phase = cJSON_CreateObject();

		cJSON_AddNullToObject(phase, "started");
		cJSON_AddNullToObject(phase, "finished");
		cJSON_AddStringToObject(phase, "name", names[i]);
		cJSON_AddStringToObject(phase, "state", states[i]);
		cJSON_AddNullToObject(phase, "result");
		cJSON_AddItemToObject(phase, "phaseReference",
							  i == 0 ? cJSON_CreateString("approvalDetails") : cJSON_CreateNull());
		cJSON_AddItemToArray(list, phase);
	}
	json_phase(row, "APPROVAL_PHASE", "EXECUTING", tenant_now());
}

/* A value of the requested item that the row repeats, null where it has none. */
static void
repeat(cJSON *row, const cJSON *item, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(item, key);

	cJSON_AddItemToObject(row, key, v ? cJSON_Duplicate(v, 1) : cJSON_CreateNull());
}

static void
add_comment(cJSON *row, const cJSON *item, const char *requester)
{
	const char *comment = json_text(item, "comment");
	cJSON	   *json;

	if (comment == NULL)
	{
		cJSON_AddNullToObject(row, "requesterComment");
		return;
	}
	json = cJSON_AddObjectToObject(row, "requesterComment");
	cJSON_AddStringToObject(json, "comment", comment);
	json_touch(json, "created", tenant_now());
	cJSON_AddItemToObject(json, "author", json_identity(requester));
}

static cJSON *
new_row(const Request *r, const cJSON *item, const char *requested_for, const char *request_type,
		const char *request_id)
{
	const char *id = json_text(item, "id");
	const Thing *t = thing_by_id(id);
	cJSON	   *row = cJSON_CreateObject();
	cJSON	   *list,
			   *ids;
	char		row_id[33];

	new_id(row_id);
	cJSON_AddStringToObject(row, "id", id);
	cJSON_AddStringToObject(row, "name", t ? t->name : id);
	cJSON_AddStringToObject(row, "type", json_text(item, "type"));
	cJSON_AddNullToObject(row, "cancelledRequestDetails");
	cJSON_AddNullToObject(row, "errorMessages");
	cJSON_AddStringToObject(row, "state", "EXECUTING");
	list = cJSON_AddArrayToObject(row, "approvalDetails");
	ids = cJSON_AddArrayToObject(row, "approvalIds");
	cJSON_AddItemToArray(list, new_approval(ids));
	cJSON_AddNullToObject(row, "manualWorkItemDetails");
	cJSON_AddStringToObject(row, "accountActivityItemId", row_id);
	cJSON_AddStringToObject(row, "requestType", request_type);
	json_touch(row, "modified", tenant_now());
	json_touch(row, "created", tenant_now());
	cJSON_AddItemToObject(row, "requester", json_identity(r->caller.identity));
	cJSON_AddItemToObject(row, "requestedFor", json_identity(requested_for));
	add_comment(row, item, r->caller.identity);
	cJSON_AddNullToObject(row, "sodViolationContext");
	cJSON_AddNullToObject(row, "provisioningDetails");
	cJSON_AddNullToObject(row, "preApprovalTriggerDetails");
	add_phases(row);
	cJSON_AddNullToObject(row, "description");
	repeat(row, item, "startDate");
	repeat(row, item, "removeDate");
	cJSON_AddTrueToObject(row, "cancelable");
	cJSON_AddStringToObject(row, "accessRequestId", request_id);
	repeat(row, item, "clientMetadata");
	cJSON_AddNullToObject(row, "requestedAccounts");
	cJSON_AddNullToObject(row, "privilegeLevel");
	return row;
}

/* Lets a new row come up in the list after a moment. */
static void
start_row(cJSON *row)
{
	char	   *text = cJSON_PrintUnformatted(row);
	Item	   *item = item_new(text, strlen(text));

	item_index(item, row);
	item->shuffle = random_next(&tenant.rng);
	life_start(item, options.pace_ms / 10);
	cJSON_free(text);
	cJSON_Delete(row);
}

/* ---- the answer ---- */

/* Called int32 by the vendor, and seen beyond it. */
static double
attributes_hash(const char *identity, const char *request_id)
{
	uint32_t	h = (uint32_t) hash_bytes(identity, strlen(identity), (unsigned char) request_id[0]);

	return h & 1 ? (double) (h | 0x80000000u) : (double) (int32_t) h;
}

static void
add_detail(cJSON *entry, const cJSON *item)
{
	cJSON	   *detail = cJSON_CreateObject();

	repeat(detail, item, "type");
	repeat(detail, item, "id");
	cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(entry, "requestedItemsDetails"), detail);
}

static cJSON *
new_entry(const char *identity, const char *request_id)
{
	cJSON	   *entry = cJSON_CreateObject();
	cJSON	   *ids;

	cJSON_AddStringToObject(entry, "requestedFor", identity);
	cJSON_AddArrayToObject(entry, "requestedItemsDetails");
	cJSON_AddNumberToObject(entry, "attributesHash", attributes_hash(identity, request_id));
	ids = cJSON_AddArrayToObject(entry, "accessRequestIds");
	cJSON_AddItemToArray(ids, cJSON_CreateString(request_id));
	return entry;
}

/* One person's items: new rows in one request, and what is asked for already. */
static void
request_for(Request *r, const char *identity, const cJSON *items, const char *type,
			cJSON *created, cJSON *existing)
{
	const cJSON *item;
	cJSON	   *entry = NULL;
	char		request_id[33];

	new_id(request_id);
	cJSON_ArrayForEach(item, items)
	{
		const char *id = json_text(item, "id");
		Item	   *same = find_open(identity, id, strcmp(type, "REVOKE_ACCESS") == 0);

		if (same)
		{
			cJSON	   *e = new_entry(identity, same->request_id ? same->request_id : "");

			add_detail(e, item);
			cJSON_AddItemToArray(existing, e);
			continue;
		}
		if (entry == NULL)
			entry = new_entry(identity, request_id);
		add_detail(entry, item);
		if (strncmp(id, "held-", 5) != 0)	/* access already held is never listed */
			start_row(new_row(r, item, identity, type, request_id));
	}
	if (entry)
		cJSON_AddItemToArray(created, entry);
}

void
call_create(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	cJSON	   *result,
			   *created,
			   *existing;
	const cJSON *one;
	const char *type;

	if (!body_valid(r, body, a))
	{
		cJSON_Delete(body);
		return;
	}
	type = json_text(body, "requestType");
	if (type == NULL)
		type = "GRANT_ACCESS";
	result = cJSON_CreateObject();
	created = cJSON_AddArrayToObject(result, "newRequests");
	existing = cJSON_AddArrayToObject(result, "existingRequests");
	cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(body, "requestedFor"))
		request_for(r, one->valuestring, cJSON_GetObjectItemCaseSensitive(body, "requestedItems"), type,
					created, existing);
	cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(body, "requestedForWithRequestedItems"))
		request_for(r, json_text(one, "identityId"), cJSON_GetObjectItemCaseSensitive(one, "requestedItems"),
					type, created, existing);
	if (r->caller.old_tenant && r->api == API_BETA)
	{
		cJSON_Delete(result);
		result = cJSON_CreateObject();
	}
	answer_json(a, 202, result);
	cJSON_Delete(body);
	life_run();
}
