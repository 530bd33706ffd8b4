/*-------------------------------------------------------------------------
 *
 * dates.h
 *	  In which form does the tenant take dates in filters?
 *
 * The documents have them bare, others were seen quoted, and what a tenant does
 * not take it refuses, or lets match nothing.  So it is asked, once: for rows by
 * a quoted date, then by a bare one, then for any row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_DATES_H
#define ACCESSREQ_DATES_H

#include "call.h"
#include "filter.h"

/* Begins all zero. */
typedef struct DateProbe
{
	int			asked;			/* questions that are answered */
	bool		done;
	DateForm	form;			/* once it is done */
} DateProbe;

/* The next question, for who has not done. */
extern void dates_ask(const DateProbe *probe, const Tenant *tenant, CallSpec *spec);

/* Its answer.  NULL, or the error, the call's or palloc'd: nothing is known. */
extern const ApiError *dates_answer(DateProbe *probe, const Tenant *tenant, Call *call);

#endif							/* ACCESSREQ_DATES_H */
