/*
 * lists.c
 *
 * A few of the tenant's other resources, for clients that read any path:
 * identities and roles in pages, and one that is a single object.
 */
#include "sandbox.h"

#include <stdio.h>

static void
list(Request *r, Answer *a, int total, void (*put) (Text *t, int n))
{
	Params		params;
	int64_t		limit,
				offset;
	bool		count;

	params_parse(&params, r->query ? r->query : "", true);
	if (page_params(&params, a, &limit, &offset, &count))
	{
		char		number[16];

		a->status = 200;
		a->content_type = "application/json";
		text_puts(&a->body, "[");
		for (int64_t i = offset; i < total && i < offset + limit; i++)
		{
			if (i > offset)
				text_puts(&a->body, ",");
			put(&a->body, (int) i);
		}
		text_puts(&a->body, "]");
		snprintf(number, sizeof(number), "%d", total);
		if (count)
			answer_header(a, "X-Total-Count", number);
	}
	params_free(&params);
}

void
call_identities(Request *r, Answer *a)
{
	list(r, a, people_count(), person_json);
}

void
call_roles(Request *r, Answer *a)
{
	list(r, a, roles_count(), role_json);
}

void
call_public_identities_config(Request *r, Answer *a)
{
	(void) r;
	answer_json(a, 200, cJSON_Parse("{\"attributes\":[{\"key\":\"department\",\"name\":\"Department\"}],"
									"\"modified\":\"2025-11-03T09:00:00.000Z\",\"modifiedBy\":null}"));
}
