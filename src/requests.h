/*-------------------------------------------------------------------------
 *
 * requests.h
 *	  Statuses of single access requests, read by their ids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_REQUESTS_H
#define ACCESSREQ_REQUESTS_H

#include "call.h"
#include "json.h"
#include "store.h"
#include "tenant.h"

/*
 * Read the statuses of access requests, as many requests at once as the tenant
 * allows, and hand each page to "take", in any order; "take" frees the call.
 */
typedef void (*RequestsPage) (void *arg, Call *call, JsonSpan *items, int nitems);
extern void requests_read(const Tenant *tenant, CallSet *calls,
						  const char *const *ids, int nids,
						  RequestsPage take, void *arg);

/* What it brought to refresh(). */
typedef void (*RequestsOutcome) (void *arg, const StoreOutcome *outcome);

/*
 * Read these access requests and store them in the current transaction, under
 * the page lock, which is taken after the last request.  "tenant_name" is what
 * the token said; raises 55000 where the rows are another tenant's.
 */
extern void requests_refresh(const Tenant *tenant, const char *tenant_name, CallSet *calls,
							 const char *const *ids, int nids,
							 RequestsOutcome report, void *arg);

/* Cut the body of a status page; raises 08P01 where it is none. */
extern JsonSpan *requests_cut(const Tenant *tenant, Call *call, int *nitems);

#endif							/* ACCESSREQ_REQUESTS_H */
