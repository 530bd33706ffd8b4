/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher of the workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_LAUNCHER_H
#define ACCESSREQ_LAUNCHER_H

#include "postgres.h"
#include "postmaster/bgworker.h"

/* In _PG_init, when preloaded: the postmaster is to start it. */
extern void launcher_register(void);

/*
 * Have the postmaster start the worker of a database.  False where all
 * max_worker_processes are in use.
 */
extern bool launcher_start_worker(Oid database, BackgroundWorkerHandle **handle);

#endif							/* ACCESSREQ_LAUNCHER_H */
