/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  What the tenant says to a call that changes something.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "answer.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "row.h"
#include "utils/fmgrprotos.h"

const JsonValue *
answer_parse(Call *call, const char **problem)
{
	HttpResponse *r = call_response(call);

	json_clean(r->body, r->body_len);
	return json_parse(r->body, r->body_len, CurrentMemoryContext, problem);
}

/* Escapes are written out first, because jsonb refuses those that it lacks. */
Datum
answer_lossy_jsonb(const JsonValue *value)
{
	char	   *utf8 = json_print(value);
	char	   *text = api_error_convert(utf8, strlen(utf8));

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

Datum
answer_jsonb(Call *call)
{
	HttpResponse *r = call_response(call);
	const char *problem;
	const JsonValue *value = answer_parse(call, &problem);

	if (value == NULL)
		return row_jsonb("{}", 2);
	if (GetDatabaseEncoding() != PG_UTF8)
		return answer_lossy_jsonb(value);
	return row_jsonb(r->body, r->body_len);
}

const ApiError *
answer_config_error(Call *call, const Tenant *tenant)
{
	const char *problem;

	if (json_is_object(answer_parse(call, &problem)))
		return NULL;
	return api_error_bad_answer(tenant, "read the access request configuration",
								call_response(call),
								problem ? problem : "it is no JSON object", false);
}

Datum
answer_config(Call *call, const Tenant *tenant)
{
	const ApiError *error = answer_config_error(call, tenant);
	const HttpResponse *r = call_response(call);

	if (error != NULL)
		api_error_raise(error);
	return row_jsonb(r->body, r->body_len);
}

static int
collect_ids(const JsonValue *list, const char **ids, int n)
{
	for (const JsonValue *t = json_first(list); t != NULL; t = json_next(t))
	{
		const JsonValue *tracked = json_get(t, "accessRequestIds");

		for (const JsonValue *i = json_first(tracked); i != NULL; i = json_next(i))
		{
			if (json_string(i) == NULL)
				continue;
			if (ids != NULL)
				ids[n] = json_string(i);
			n++;
		}
	}
	return n;
}

static int
collect_created(const JsonValue *answer, const char **ids)
{
	int			n = collect_ids(json_get(answer, "newRequests"), ids, 0);

	return collect_ids(json_get(answer, "existingRequests"), ids, n);
}

const char **
answer_created(const JsonValue *answer, int *n)
{
	const char **ids;

	*n = collect_created(answer, NULL);
	ids = palloc(sizeof(char *) * Max(*n, 1));
	(void) collect_created(answer, ids);
	return ids;
}

char *
answer_listed_errors(const Call *call, const JsonValue *list)
{
	char	   *text = json_print(list);

	if (call_repeats_secret(call, text))
		return pstrdup("The tenant took the call and lists errors, which are left out because they repeat a secret");
	return psprintf("The tenant took the call and lists errors: %s", api_error_text(text));
}

char *
answer_error_line(const ApiError *error)
{
	StringInfoData buf;

	if (error == NULL)
		return NULL;
	initStringInfo(&buf);
	appendStringInfoString(&buf, error->message);
	if (error->detail != NULL)
		appendStringInfo(&buf, ". %s", error->detail);
	if (error->hint != NULL)
		appendStringInfo(&buf, "%s %s", error->detail ? "" : ".", error->hint);
	return buf.data;
}
