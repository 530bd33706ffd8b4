/*
 * calls.c
 *
 * POST cancel, bulk-cancel and close.  Cancel works only until approval has
 * passed, close at any time but a moment later.
 */
#include "sandbox.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CANCEL 50
#define MAX_CLOSE 500

static bool
may_cancel(const Request *r, const Item *item)
{
	return !r->caller.self_only || item->requester == intern_find(r->caller.identity);
}

/* Cancels what of a request can be cancelled; how many rows that was. */
static int
cancel_request(const Request *r, const char *request_id, const char *comment, size_t *found)
{
	Item	  **rows;
	int			cancelled = 0;

	*found = tenant_request(request_id, &rows);
	for (size_t i = 0; i < *found; i++)
		if (may_cancel(r, rows[i]))
			cancelled += item_cancel(rows[i], comment, r->caller.identity);
	free(rows);
	return cancelled;
}

void
call_cancel(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *id = json_text(body, "accountActivityId");
	const char *comment = json_text(body, "comment");
	size_t		found = 0;

	if (id == NULL || *id == '\0')
		answer_error(a, 400, "accountActivityId is required.");
	else if (comment == NULL || *comment == '\0')
		answer_error(a, 400, "comment is required.");
	else if (cancel_request(r, id, comment, &found) > 0)
		answer_json(a, 202, cJSON_CreateObject());
	else if (found == 0)
		answer_error(a, 404, "No access request has the id %.100s.", id);
	else if (r->caller.self_only)
		answer_error(a, 403, "The request is not the caller's, or past its approval.");
	else
		answer_error(a, 400, "The request %.100s is past its approval and cannot be cancelled.", id);
	cJSON_Delete(body);
}

/* accessRequestIds of a body: texts, 1 to max of them. */
static const cJSON *
id_list(const cJSON *body, int max, Answer *a)
{
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(body, "accessRequestIds");
	const cJSON *id;
	int			n = cJSON_GetArraySize(ids);

	if (!cJSON_IsArray(ids) || n < 1 || n > max)
	{
		answer_error(a, 400, "accessRequestIds must be a list of 1 to %d ids.", max);
		return NULL;
	}
	cJSON_ArrayForEach(id, ids)
	{
		if (!cJSON_IsString(id) || *id->valuestring == '\0')
		{
			answer_error(a, 400, "An element of accessRequestIds is not an id.");
			return NULL;
		}
	}
	return ids;
}

/* The first id that no request has, NULL if there is none. */
static const char *
unknown_id(const cJSON *ids)
{
	const cJSON *id;

	cJSON_ArrayForEach(id, ids)
	{
		Item	  **rows;
		size_t		n = tenant_request(id->valuestring, &rows);

		free(rows);
		if (n == 0 && !life_is_hidden(id->valuestring))
			return id->valuestring;
	}
	return NULL;
}

/* Unknown ids refuse the whole; of the others, what can be cancelled is. */
void
call_bulk_cancel(Request *r, Answer *a)
{
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *comment = json_text(body, "comment");
	const cJSON *ids = id_list(body, MAX_CANCEL, a);
	const cJSON *id;
	const char *unknown;
	size_t		found;

	if (ids && (comment == NULL || *comment == '\0'))
		answer_error(a, 400, "comment is required.");
	else if (ids && (unknown = unknown_id(ids)) != NULL)
		answer_error(a, 404, "No access request has the id %.100s.", unknown);
	else if (ids)
	{
		cJSON_ArrayForEach(id, ids)
			cancel_request(r, id->valuestring, comment, &found);
		answer_json(a, 202, cJSON_CreateObject());
	}
	cJSON_Delete(body);
}

/* Absent and null are the default; anything else must be one of the words. */
static bool
word_valid(const cJSON *body, const char *key, const char *const *words)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(body, key);

	if (v == NULL || cJSON_IsNull(v))
		return true;
	for (int i = 0; cJSON_IsString(v) && words[i]; i++)
		if (strcmp(v->valuestring, words[i]) == 0)
			return true;
	return false;
}

void
call_close(Request *r, Answer *a)
{
	static const char *const executions[] = {"Terminated", "Completed", NULL};
	static const char *const completions[] = {"Success", "Incomplete", "Failure", NULL};
	cJSON	   *body = json_parse(r->body.data, r->body.len);
	const char *execution = json_text(body, "executionStatus");
	const cJSON *ids = id_list(body, MAX_CLOSE, a);
	const cJSON *id;

	if (ids && (!word_valid(body, "executionStatus", executions) ||
				!word_valid(body, "completionStatus", completions)))
		answer_error(a, 400, "executionStatus or completionStatus has an unknown value.");
	else if (ids)
	{
		cJSON	   *result = cJSON_CreateObject();
		char		job[33];

		cJSON_ArrayForEach(id, ids)
			life_close(id->valuestring, execution && strcmp(execution, "Completed") == 0,
					   options.pace_ms / 10);
		new_id(job);
		cJSON_AddStringToObject(result, "id", job);
		cJSON_AddArrayToObject(result, "errors");
		answer_json(a, 202, result);
		life_run();
	}
	cJSON_Delete(body);
}
