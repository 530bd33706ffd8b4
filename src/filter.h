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

/* How a tenant takes dates: see dates.h. */
typedef enum DateForm
{
	DATES_UNKNOWN,				/* nothing has told yet */
	DATES_NEITHER,				/* no date matches anything */
	DATES_QUOTED,
	DATES_BARE
} DateForm;

/* Its name in sync_job, NULL for DATES_UNKNOWN; and back. */
extern const char *filter_form_name(DateForm form);
extern DateForm filter_form(const char *name);

/* Can rows be filtered by a date? */
extern bool filter_takes_dates(DateForm form);

/* Rows that have a date in created, a constant; NULL where there is no such filter. */
extern const char *filter_dated(DateForm form);

/* "filter and accountActivityItemId gt id"; either may be NULL. */
extern char *filter_after(const char *filter, const char *id);

/* accessRequestId eq or in; accountActivityItemId in. */
extern char *filter_requests(const char *const *ids, int nids);
extern char *filter_items(const char *const *ids, int nids);

/*
 * created at or after "from", and before "to"; DT_NOBEGIN: no such condition.
 * NULL where there is neither, or where no filter takes dates.  Times are cut to milliseconds, see
 * filter_floor().
 */
extern char *filter_created(DateForm form, TimestampTz from, TimestampTz to);

/* What a time is cut to in a filter: not all tenants read microseconds. */
#define FILTER_UNIT_US 1000
extern TimestampTz filter_floor(TimestampTz t);

/* Append a time as the API writes it, with so many digits behind the second. */
extern void filter_append_time(StringInfo buf, TimestampTz t, int digits);

#endif							/* ACCESSREQ_FILTER_H */
