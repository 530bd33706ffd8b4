/*
 * config.c
 *
 * GET and PUT access-request-config.  The configuration has two shapes: one
 * up to v2025, another in v2026 and in the v1 style.  A PUT replaces all of
 * it: keys that the body leaves out fall back to their defaults.
 */
#include "sandbox.h"

#include <string.h>

static const char *const defaults[2] = {
	"{\"approvalsMustBeExternal\":false,\"autoApprovalEnabled\":false,\"reauthorizationEnabled\":false,"
	"\"requestOnBehalfOfConfig\":{\"allowRequestOnBehalfOfAnyoneByAnyone\":false,"
	"\"allowRequestOnBehalfOfEmployeeByManager\":true},"
	"\"approvalReminderAndEscalationConfig\":{\"daysUntilEscalation\":5,\"daysBetweenReminders\":2,"
	"\"maxReminders\":3,\"fallbackApproverRef\":null},"
	"\"entitlementRequestConfig\":{\"accessRequestConfig\":{\"approvalSchemes\":"
	"[{\"approverType\":\"MANAGER\",\"approverId\":null}],\"requestCommentRequired\":true,"
	"\"denialCommentRequired\":false,\"reauthorizationRequired\":false,\"requireEndDate\":false,"
	"\"maxPermittedAccessDuration\":null},\"revocationRequestConfig\":{\"approvalSchemes\":[]}}}",

	"{\"approvalsMustBeExternal\":false,\"reauthorizationEnabled\":false,"
	"\"requestOnBehalfOfConfig\":{\"allowRequestOnBehalfOfAnyoneByAnyone\":false,"
	"\"allowRequestOnBehalfOfEmployeeByManager\":true},"
	"\"requestReminders\":{\"enabled\":true,\"intervalDays\":2,\"limit\":3},"
	"\"escalation\":{\"afterDays\":5,\"fallbackApprover\":null},"
	"\"entitlementRequestConfig\":{\"accessRequestConfig\":{\"approvalSchemes\":[],"
	"\"requestCommentRequired\":true},\"revocationRequestConfig\":{\"approvalSchemes\":[]}}}"
};

static cJSON *current[2];

static int
shape_of(const Request *r)
{
	return r->api == API_V2026 || r->api == API_V1;
}

static cJSON *
config_of(int shape)
{
	if (current[shape] == NULL)
		current[shape] = cJSON_Parse(defaults[shape]);
	return current[shape];
}

static bool
experimental_ok(const Request *r, Answer *a)
{
	if (r->api != API_V2026 || (r->experimental && strcmp(r->experimental, "true") == 0))
		return true;
	answer_error(a, 400, "This call is experimental: the header X-SailPoint-Experimental must be true.");
	return false;
}

void
call_get_config(Request *r, Answer *a)
{
	if (experimental_ok(r, a))
		answer_json(a, 200, cJSON_Duplicate(config_of(shape_of(r)), 1));
}

/* Null fits everything; otherwise a known key keeps the type of its default. */
static const char *
wrong_key(const cJSON *body, const cJSON *model)
{
	const cJSON *v;

	cJSON_ArrayForEach(v, body)
	{
		const cJSON *m = cJSON_GetObjectItemCaseSensitive(model, v->string);

		if (m == NULL || cJSON_IsNull(m) || cJSON_IsNull(v))
			continue;
		if (cJSON_IsBool(m) != cJSON_IsBool(v) || cJSON_IsObject(m) != cJSON_IsObject(v) ||
			cJSON_IsArray(m) != cJSON_IsArray(v) || cJSON_IsNumber(m) != cJSON_IsNumber(v))
			return v->string;
		if (cJSON_IsObject(v) && wrong_key(v, m))
			return v->string;
	}
	return NULL;
}

static void
put_config(int shape, cJSON *body, Answer *a)
{
	cJSON	   *model = cJSON_Parse(defaults[shape]);
	const char *wrong = wrong_key(body, model);
	const cJSON *v;

	if (wrong)
	{
		answer_error(a, 400, "The value of %.60s has the wrong type.", wrong);
		cJSON_Delete(body);
	}
	else
	{
		cJSON_ArrayForEach(v, model)
		{
			if (!cJSON_GetObjectItemCaseSensitive(body, v->string))
				cJSON_AddItemToObject(body, v->string, cJSON_Duplicate(v, 1));
		}
		cJSON_Delete(current[shape]);
		current[shape] = body;
		answer_json(a, 200, cJSON_Duplicate(body, 1));
	}
	cJSON_Delete(model);
}

void
call_put_config(Request *r, Answer *a)
{
	cJSON	   *body;

	if (!experimental_ok(r, a))
		return;
	body = json_parse(r->body.data, r->body.len);
	if (!cJSON_IsObject(body))
	{
		answer_error(a, 400, "The body must be a JSON object.");
		cJSON_Delete(body);
		return;
	}
	put_config(shape_of(r), body, a);
}
