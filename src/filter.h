/*-------------------------------------------------------------------------
 *
 * filter.h
 *	  The tenant's filter language: texts of conditions.
 *
 * Everything is UTF-8 and palloc'd in the current memory context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_FILTER_H
#define ACCESSREQ_FILTER_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

/* "filter and accountActivityItemId gt id"; either may be NULL. */
extern char *filter_after(const char *filter, const char *id);

/* accessRequestId eq or in; accountActivityItemId in. */
extern char *filter_requests(const char *const *ids, int nids);
extern char *filter_items(const char *const *ids, int nids);

/*
 * created at or after "from", and before "to"; DT_NOBEGIN: no such condition.
 * NULL where there is neither.  Times are cut to milliseconds, see
 * filter_floor().
 */
extern char *filter_created(TimestampTz from, TimestampTz to);

/* What a time is cut to in a filter: not all tenants read microseconds. */
#define FILTER_UNIT_US 1000
extern TimestampTz filter_floor(TimestampTz t);

/* Append a time as the API writes it, with so many digits behind the second. */
extern void filter_append_time(StringInfo buf, TimestampTz t, int digits);

#endif							/* ACCESSREQ_FILTER_H */
