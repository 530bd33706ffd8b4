/*-------------------------------------------------------------------------
 *
 * footing.h
 *	  What a pull stands on, and whether it still does: its server, its mapping,
 *	  its rights, its job, its tenant.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_FOOTING_H
#define ACCESSREQ_FOOTING_H

#include "job.h"
#include "tenant.h"

/*
 * Take note of what a run that begins stands on.  "door" is the procedure or
 * function by which its role pulls, as regprocedure takes it.
 */
extern void footing_note(JobRun *run, const Tenant *tenant, const char *door);

/*
 * In the transaction that is to write for the run: hold its server and mapping,
 * so that nobody drops them meanwhile, and raise where something is not as it was
 * when the run began: 42704 for a server or a mapping that is gone, 42501 for a
 * right, 55000 for the rest.  Returns the tenant to go on with, which is held
 * until "cxt" is reset: with the secret of now, where the mapping has another.
 */
extern const Tenant *footing_check(const JobRun *run, const Tenant *tenant,
								   MemoryContext cxt);

#endif							/* ACCESSREQ_FOOTING_H */
