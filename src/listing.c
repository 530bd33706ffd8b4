/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  A list of statuses, read to its end by the items' ids.
 *
 * Pages by offset lose rows that move between them; these go on after the last
 * id.  From the newest down new rows come in at the head, so that rows are read
 * twice and not lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "api.h"
#include "filter.h"
#include "item.h"
#include "listing.h"
#include "pull.h"

Call *
listing_ask(Listing *listing, const Tenant *tenant, CallSet *calls, const CallSpec *how)
{
	ApiStatusQuery query = {0};
	CallSpec	spec;

	query.limit = API_MAX_PAGE;
	query.count = listing->after == NULL;
	query.requested_by = listing->requested_by;
	if (listing->newest)
	{
		query.sorters = "-created," ITEM_ID_KEY;
		query.offset = listing->seen;
	}
	else
		query.filters = filter_after(listing->filter, listing->after);
	api_status(&spec, tenant, &query);
	spec.tag = listing;
	if (how != NULL)
	{
		spec.patient = how->patient;
		spec.patience_us = how->patience_us;
		spec.share = how->share;
		spec.counts = how->counts;
		spec.tag = how->tag;
	}
	return call_start(calls, &spec);
}

char *
listing_last_id(const JsonSpan *items, int nitems)
{
	for (int i = nitems - 1; i >= 0; i--)
	{
		if (json_has_id(&items[i]))
			return pnstrdup(items[i].id, items[i].id_len);
	}
	return NULL;
}

static const ApiError *
bad_page(const Tenant *tenant, Call *call, const char *problem)
{
	return api_error_bad_answer(tenant, "list access request statuses",
								call_response(call), problem, false);
}

/* Has a list that began with the newest come to what is older? */
static bool
is_past(const Listing *listing, const JsonSpan *items, int nitems)
{
	StatusItem	item;
	const char *problem;

	for (int i = nitems - 1; i >= 0; i--)
	{
		if (items[i].problem == NULL &&
			item_decode(items[i].start, items[i].len, CurrentMemoryContext, &item, &problem) &&
			item.created != DT_NOBEGIN)
			return item.created < listing->since;
	}
	return false;
}

/*
 * More may be behind any page but one that is empty, or short and the last by
 * the tenant's count.
 */
const ApiError *
listing_read(Listing *listing, const Tenant *tenant, Call *call,
			 JsonSpan **items, int *nitems, bool *more)
{
	HttpResponse *response = call_response(call);
	const ApiError *error = call_error(call);
	const char *problem;
	const char *last;

	*nitems = 0;
	*more = false;
	if (error != NULL)
		return error->past_end ? NULL : error;
	if (!json_cut_page(response->body, response->body_len, ITEM_ID_KEY, items, nitems, &problem))
		return bad_page(tenant, call, problem);
	last = listing_last_id(*items, *nitems);
	if (listing->after == NULL)
		listing->total = response->total_count;
	listing->seen += *nitems;
	*more = *nitems > 0 &&
		(*nitems >= API_MAX_PAGE || listing->total < 0 || listing->seen < listing->total);
	/* a short page without a count may well be the last */
	if (last == NULL && *nitems < API_MAX_PAGE && listing->total < 0)
		*more = false;
	if (*more && last == NULL)
		return bad_page(tenant, call, "no item of the page has an " ITEM_ID_KEY " to go on from");
	/* one that drops the offset shows what it shows, and no more */
	if (*more && listing->newest)
		*more = !is_past(listing, *items, *nitems) &&
			(listing->after == NULL || strcmp(listing->after, last) != 0);
	else if (*more && listing->after != NULL && strcmp(listing->after, last) == 0)
		return bad_page(tenant, call, PULL_STANDS_STILL);
	listing->after = last;
	return NULL;
}
