/*-------------------------------------------------------------------------
 *
 * listing.h
 *	  A list of statuses, read to its end by the items' ids; or, where no filter
 *	  takes a date, from the newest down to one, by offset.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LISTING_H
#define ACCESSREQ_LISTING_H

#include "call.h"
#include "json.h"

/* What is listed, and how far its pages have come.  Begins all zero. */
typedef struct Listing
{
	const char *filter;			/* or NULL */
	const char *requested_by;	/* or NULL */
	bool		newest;			/* not by id, but from the newest down to: */
	TimestampTz since;			/* created */
	const char *after;			/* the last id seen, or NULL */
	int64		seen;
	int64		total;			/* of the first page, -1: not told */
} Listing;

/*
 * Ask for the next page.  Of "how" the patience, share, counts and tag are those
 * of the call; NULL: a session's, with the listing as its tag.
 */
extern Call *listing_ask(Listing *listing, const Tenant *tenant, CallSet *calls,
						 const CallSpec *how);

/*
 * Read a page that has come: its items, which point into the answer, and
 * whether there may be more.  NULL, or the error, which is the call's or
 * palloc'd.
 */
extern const ApiError *listing_read(Listing *listing, const Tenant *tenant, Call *call,
									JsonSpan **items, int *nitems, bool *more);

/* The id of the last item that has one that can be read, palloc'd, or NULL. */
extern char *listing_last_id(const JsonSpan *items, int nitems);

#endif							/* ACCESSREQ_LISTING_H */
