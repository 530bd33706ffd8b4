/*-------------------------------------------------------------------------
 *
 * dates.c
 *	  In which form does the tenant take dates in filters?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "dates.h"
#include "item.h"
#include "json.h"

#define HTTP_BAD_REQUEST 400

/* What is asked for, one after the other; the last without a date. */
static const DateForm questions[] = {DATES_QUOTED, DATES_BARE, DATES_NEITHER};

void
dates_ask(const DateProbe *probe, const Tenant *tenant, CallSpec *spec)
{
	ApiStatusQuery query = {0};

	query.limit = 1;
	query.filters = filter_dated(questions[probe->asked]);
	api_status(spec, tenant, &query);
}

const ApiError *
dates_answer(DateProbe *probe, const Tenant *tenant, Call *call)
{
	DateForm	asked = questions[probe->asked];
	const ApiError *error = call_error(call);
	bool		refused = error != NULL && error->status == HTTP_BAD_REQUEST && asked != DATES_NEITHER;
	JsonSpan   *items;
	int			nitems = 0;
	const char *problem;

	if (error != NULL && !refused)
		return error;
	if (!refused &&
		!json_cut_page(call_response(call)->body, call_response(call)->body_len, ITEM_ID_KEY,
					   &items, &nitems, &problem))
		return api_error_bad_answer(tenant, "list access request statuses",
									call_response(call), problem, false);
	probe->asked++;
	if (nitems > 0)
		probe->form = asked;
	/* a tenant without rows says nothing */
	probe->done = nitems > 0 || probe->asked == lengthof(questions);
	return NULL;
}
