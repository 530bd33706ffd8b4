/* accessreq--1.0.sql: the SQL side of the extension, complete. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION accessreq" to load this file. \quit

-- CREATE EXTENSION takes a schema of this name as it finds it.  Its owner could
-- replace whatever is made in it, and has perhaps put operators there that fit
-- what is written below better than PostgreSQL's own.  (For the latter reason
-- names and operators in expressions are qualified.)
DO $$
DECLARE
	owner pg_catalog.name;
BEGIN
	SELECT r.rolname INTO owner
	FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
	WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.name
	AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER AND NOT r.rolsuper;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = pg_catalog.format('schema "%s" belongs to role "%s", which is neither the current user nor a superuser',
				'@extschema@', owner),
			HINT = 'Drop the schema, or see that it is empty and give it to yourself: ALTER SCHEMA @extschema@ OWNER TO CURRENT_USER.';
	END IF;
END
$$;

COMMENT ON SCHEMA @extschema@ IS
'SailPoint Identity Security Cloud access requests: functions that call the API, and tables that hold synced statuses';

GRANT USAGE ON SCHEMA accessreq TO PUBLIC;

-- ---------------------------------------------------------------------------
-- Connections: a SERVER is a tenant, secrets live on the USER MAPPING
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.validator(options text[], catalog oid)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_validator'
LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.validator(text[], oid) IS
'checks the options of CREATE/ALTER SERVER and USER MAPPING; called by PostgreSQL, not by users';

CREATE FOREIGN DATA WRAPPER accessreq VALIDATOR accessreq.validator;
COMMENT ON FOREIGN DATA WRAPPER accessreq IS
'connections to SailPoint Identity Security Cloud tenants; doc/reference.md lists the options';

-- ---------------------------------------------------------------------------
-- The live row: what status(), status_of() return
-- ---------------------------------------------------------------------------

CREATE TYPE accessreq.item_status AS (
	account_activity_item_id	text,
	access_request_id			text,
	item_id						text,
	item_name					text,
	item_type					text,
	request_type				text,
	state						text,
	requester_id				text,
	requester_name				text,
	requested_for_id			text,
	requested_for_name			text,
	requester_comment			text,
	created						timestamptz,
	modified					timestamptz,
	start_date					timestamptz,
	remove_date					timestamptz,
	cancelable					boolean,
	cancel_comment				text,
	cancelled_at				timestamptz,
	cancelled_by_id				text,
	cancelled_by_name			text,
	sod_state					text,
	sod_policies				text[],
	description					text,
	privilege_level				text,
	source_names				text[],
	error_text					text,
	client_metadata				jsonb,
	raw							jsonb
);
COMMENT ON TYPE accessreq.item_status IS
'one requested item as the tenant reports it now; the columns of request_status that come from the API, and the whole answer in raw';
COMMENT ON COLUMN accessreq.item_status.account_activity_item_id IS 'the tenant''s identity of this requested item (accountActivityItemId)';
COMMENT ON COLUMN accessreq.item_status.access_request_id IS 'the access request this item belongs to (accessRequestId): what cancel and close take; null on some old rows';
COMMENT ON COLUMN accessreq.item_status.item_id IS 'the role, access profile or entitlement that was requested';
COMMENT ON COLUMN accessreq.item_status.item_name IS 'name of the requested item';
COMMENT ON COLUMN accessreq.item_status.item_type IS 'ACCESS_PROFILE, ROLE or ENTITLEMENT; text, because the tenant adds values without notice';
COMMENT ON COLUMN accessreq.item_status.request_type IS 'GRANT_ACCESS, REVOKE_ACCESS or MODIFY_ACCESS';
COMMENT ON COLUMN accessreq.item_status.state IS 'EXECUTING (also while waiting for approval), REQUEST_COMPLETED, CANCELLED, TERMINATED, PROVISIONING_VERIFICATION_PENDING, REJECTED, PROVISIONING_FAILED, NOT_ALL_ITEMS_PROVISIONED, ERROR, or what the tenant adds';
COMMENT ON COLUMN accessreq.item_status.requester_id IS 'identity that made the request';
COMMENT ON COLUMN accessreq.item_status.requester_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.requested_for_id IS 'identity the access is for';
COMMENT ON COLUMN accessreq.item_status.requested_for_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.requester_comment IS 'what the requester wrote';
COMMENT ON COLUMN accessreq.item_status.created IS 'when the request was made, by the tenant''s clock';
COMMENT ON COLUMN accessreq.item_status.modified IS 'when it last changed, by the tenant''s clock; can be null and does not move on every change';
COMMENT ON COLUMN accessreq.item_status.start_date IS 'when the access is to begin';
COMMENT ON COLUMN accessreq.item_status.remove_date IS 'when the access is to end';
COMMENT ON COLUMN accessreq.item_status.cancelable IS 'whether the tenant would accept a cancel: only before approval has passed; after that close it';
COMMENT ON COLUMN accessreq.item_status.cancel_comment IS 'why it was cancelled';
COMMENT ON COLUMN accessreq.item_status.cancelled_at IS 'when, by the tenant''s clock';
COMMENT ON COLUMN accessreq.item_status.cancelled_by_id IS 'identity that cancelled it';
COMMENT ON COLUMN accessreq.item_status.cancelled_by_name IS 'its name';
COMMENT ON COLUMN accessreq.item_status.sod_state IS 'outcome of the check for separation of duties';
COMMENT ON COLUMN accessreq.item_status.sod_policies IS 'names of the policies it violates';
COMMENT ON COLUMN accessreq.item_status.description IS 'description of the requested item';
COMMENT ON COLUMN accessreq.item_status.privilege_level IS 'how privileged the item is, where the tenant says';
COMMENT ON COLUMN accessreq.item_status.source_names IS 'distinct names of the sources of the requested accounts';
COMMENT ON COLUMN accessreq.item_status.error_text IS 'the item''s error messages, each once';
COMMENT ON COLUMN accessreq.item_status.client_metadata IS 'the key-value pairs that the requester attached to this item';
COMMENT ON COLUMN accessreq.item_status.raw IS 'the whole item as the tenant sends it, U+0000 and lone surrogates replaced by U+FFFD';

-- ---------------------------------------------------------------------------
-- Synced tables. Keys lead with server; no foreign key between them (it costs
-- half of a pull again); every unique key holds server and item id, so that
-- they can be partitioned.
-- ---------------------------------------------------------------------------

CREATE TABLE accessreq.request_status (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	access_request_id			text COLLATE "C",
	item_id						text COLLATE "C",
	item_name					text,
	item_type					text,
	request_type				text,
	state						text,
	requester_id				text COLLATE "C",
	requester_name				text,
	requested_for_id			text COLLATE "C",
	requested_for_name			text,
	requester_comment			text,
	created						timestamptz,
	modified					timestamptz,
	start_date					timestamptz,
	remove_date					timestamptz,
	cancelable					boolean,
	cancel_comment				text,
	cancelled_at				timestamptz,
	cancelled_by_id				text COLLATE "C",
	cancelled_by_name			text,
	sod_state					text,
	sod_policies				text[],
	description					text,
	privilege_level				text,
	source_names				text[],
	error_text					text,
	client_metadata				jsonb,
	raw							json,
	content_hash				bigint NOT NULL,
	first_seen_at				timestamptz NOT NULL,
	changed_at					timestamptz NOT NULL,
	missing_since				timestamptz,
	PRIMARY KEY (server, account_activity_item_id)
);
CREATE INDEX request_status_access_request_id_idx ON accessreq.request_status (access_request_id);
CREATE INDEX request_status_requested_for_id_idx ON accessreq.request_status (requested_for_id);
CREATE INDEX request_status_item_id_idx ON accessreq.request_status (item_id);
CREATE INDEX request_status_requester_id_idx ON accessreq.request_status (requester_id);
CREATE INDEX request_status_state_created_idx ON accessreq.request_status (state, created);
CREATE INDEX request_status_modified_idx ON accessreq.request_status (modified);
-- for the windows of a scan
CREATE INDEX request_status_created_idx ON accessreq.request_status (created);
-- the open rows, which every cycle of a pull reads; src/tables.h has the same words
CREATE INDEX request_status_open_idx ON accessreq.request_status (account_activity_item_id)
	WHERE missing_since IS NULL AND (state IS NULL OR state OPERATOR(pg_catalog.<>) ALL (ARRAY['REQUEST_COMPLETED', 'CANCELLED',
		'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR']::pg_catalog.text[]));
-- rows of our own creates, by the token that src/mark.h has; a hash, which holds no
-- nulls, and a tenant's text of any length
CREATE INDEX request_status_client_token_idx ON accessreq.request_status
	USING hash ((client_metadata OPERATOR(pg_catalog.->>) 'accessreq_client_token'::pg_catalog.text));
COMMENT ON TABLE accessreq.request_status IS
'access request statuses as last pulled, one row a requested item; an access request has one to several items with the same access_request_id';
COMMENT ON COLUMN accessreq.request_status.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.request_status.account_activity_item_id IS 'the tenant''s identity of this requested item (accountActivityItemId)';
COMMENT ON COLUMN accessreq.request_status.access_request_id IS 'the access request this item belongs to (accessRequestId): what cancel and close take; null on some old rows';
COMMENT ON COLUMN accessreq.request_status.item_id IS 'the role, access profile or entitlement that was requested';
COMMENT ON COLUMN accessreq.request_status.item_type IS 'ACCESS_PROFILE, ROLE or ENTITLEMENT; text, because the tenant adds values without notice';
COMMENT ON COLUMN accessreq.request_status.request_type IS 'GRANT_ACCESS, REVOKE_ACCESS or MODIFY_ACCESS';
COMMENT ON COLUMN accessreq.request_status.state IS 'EXECUTING (also while waiting for approval), REQUEST_COMPLETED, CANCELLED, TERMINATED, PROVISIONING_VERIFICATION_PENDING, REJECTED, PROVISIONING_FAILED, NOT_ALL_ITEMS_PROVISIONED, ERROR, or what the tenant adds';
COMMENT ON COLUMN accessreq.request_status.created IS 'when the request was made, by the tenant''s clock';
COMMENT ON COLUMN accessreq.request_status.modified IS 'when it last changed, by the tenant''s clock; can be null and does not move on every change';
COMMENT ON COLUMN accessreq.request_status.start_date IS 'when the access is to begin';
COMMENT ON COLUMN accessreq.request_status.remove_date IS 'when the access is to end';
COMMENT ON COLUMN accessreq.request_status.cancelable IS 'whether the tenant would accept a cancel: only before approval has passed; after that close it';
COMMENT ON COLUMN accessreq.request_status.sod_state IS 'outcome of the check for separation of duties';
COMMENT ON COLUMN accessreq.request_status.sod_policies IS 'names of the policies it violates';
COMMENT ON COLUMN accessreq.request_status.source_names IS 'distinct names of the sources of the requested accounts';
COMMENT ON COLUMN accessreq.request_status.error_text IS 'the item''s error messages, each once';
COMMENT ON COLUMN accessreq.request_status.client_metadata IS 'the key-value pairs that the requester attached to this item';
COMMENT ON COLUMN accessreq.request_status.raw IS 'the item as the tenant sent it, U+0000 and lone surrogates replaced by U+FFFD; cast to jsonb for operators, and list columns under DISTINCT and UNION, because json has no equality; null where raw is not kept';
COMMENT ON COLUMN accessreq.request_status.content_hash IS 'tells whether the item changed since it was stored; private to the extension, changes between releases';
COMMENT ON COLUMN accessreq.request_status.first_seen_at IS 'when it was first stored, by this machine''s clock';
COMMENT ON COLUMN accessreq.request_status.changed_at IS 'when the request was sent that brought the last change, by this machine''s clock';
COMMENT ON COLUMN accessreq.request_status.missing_since IS 'since when full scans do not return it; null while they do';
COMMENT ON COLUMN accessreq.request_status.item_name IS 'name of the requested item';
COMMENT ON COLUMN accessreq.request_status.requester_id IS 'identity that made the request';
COMMENT ON COLUMN accessreq.request_status.requester_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.requested_for_id IS 'identity the access is for';
COMMENT ON COLUMN accessreq.request_status.requested_for_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.requester_comment IS 'what the requester wrote';
COMMENT ON COLUMN accessreq.request_status.cancel_comment IS 'why it was cancelled';
COMMENT ON COLUMN accessreq.request_status.cancelled_at IS 'when, by the tenant''s clock';
COMMENT ON COLUMN accessreq.request_status.cancelled_by_id IS 'identity that cancelled it';
COMMENT ON COLUMN accessreq.request_status.cancelled_by_name IS 'its name';
COMMENT ON COLUMN accessreq.request_status.description IS 'description of the requested item';
COMMENT ON COLUMN accessreq.request_status.privilege_level IS 'how privileged the item is, where the tenant says';

CREATE TABLE accessreq.approval (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	approval_id					text COLLATE "C",
	status						text,
	scheme						text,
	forwarded					boolean,
	original_owner_type			text,
	original_owner_id			text COLLATE "C",
	original_owner_name			text,
	current_owner_type			text,
	current_owner_id			text COLLATE "C",
	current_owner_name			text,
	reviewed_by_id				text COLLATE "C",
	reviewed_by_name			text,
	comment						text,
	modified					timestamptz,
	remove_date					timestamptz,
	timeout_config				jsonb,
	error_text					text,
	pending_since				timestamptz,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
CREATE INDEX approval_current_owner_id_idx ON accessreq.approval (current_owner_id)
	WHERE status OPERATOR(pg_catalog.=) 'PENDING'::pg_catalog.text;
COMMENT ON TABLE accessreq.approval IS
'the approvals of each item of request_status, in the tenant''s order (ordinal from 1)';
COMMENT ON COLUMN accessreq.approval.status IS 'PENDING, APPROVED, REJECTED, EXPIRED, CANCELLED, ARCHIVED, or what the tenant adds';
COMMENT ON COLUMN accessreq.approval.scheme IS 'which rule asked for this approval (APP_OWNER, MANAGER, WORKFLOW, …)';
COMMENT ON COLUMN accessreq.approval.pending_since IS 'since when the current owner holds it: when we saw it come to him, or, where it was pending at first sight, the tenant''s time of its last change; null where it is not pending';
COMMENT ON COLUMN accessreq.approval.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.approval.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.approval.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.approval.approval_id IS 'the tenant''s id of the approval, where it gives one';
COMMENT ON COLUMN accessreq.approval.forwarded IS 'whether it was passed on';
COMMENT ON COLUMN accessreq.approval.original_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.approval.original_owner_id IS 'whom it was given to first';
COMMENT ON COLUMN accessreq.approval.original_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.approval.current_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.approval.current_owner_id IS 'who holds it now';
COMMENT ON COLUMN accessreq.approval.current_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.approval.reviewed_by_id IS 'who decided';
COMMENT ON COLUMN accessreq.approval.reviewed_by_name IS 'that one''s name';
COMMENT ON COLUMN accessreq.approval.comment IS 'what the reviewer wrote';
COMMENT ON COLUMN accessreq.approval.modified IS 'when it last changed, by the tenant''s clock';
COMMENT ON COLUMN accessreq.approval.remove_date IS 'end of the access that the reviewer set';
COMMENT ON COLUMN accessreq.approval.timeout_config IS 'when and how it times out';
COMMENT ON COLUMN accessreq.approval.error_text IS 'its error messages, each once';

CREATE TABLE accessreq.phase (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	name						text,
	state						text,
	result						text,
	started						timestamptz,
	finished					timestamptz,
	phase_reference				text,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
COMMENT ON TABLE accessreq.phase IS
'the phases each item of request_status goes through (approval, SoD check, provisioning, …), in the tenant''s order';
COMMENT ON COLUMN accessreq.phase.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.phase.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.phase.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.phase.name IS 'APPROVAL_PHASE, SOD_PHASE, PROVISIONING_PHASE, …';
COMMENT ON COLUMN accessreq.phase.state IS 'PENDING, EXECUTING, COMPLETED, CANCELLED, NOT_EXECUTED, or what the tenant adds';
COMMENT ON COLUMN accessreq.phase.result IS 'SUCCESSFUL or FAILED, once it is completed';
COMMENT ON COLUMN accessreq.phase.started IS 'when it began, by the tenant''s clock';
COMMENT ON COLUMN accessreq.phase.finished IS 'when it ended';
COMMENT ON COLUMN accessreq.phase.phase_reference IS 'the list of the item that the phase is about (approvalDetails, …)';

CREATE TABLE accessreq.manual_work_item (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	status						text,
	forwarded					boolean,
	original_owner_type			text,
	original_owner_id			text COLLATE "C",
	original_owner_name			text,
	current_owner_type			text,
	current_owner_id			text COLLATE "C",
	current_owner_name			text,
	modified					timestamptz,
	PRIMARY KEY (server, account_activity_item_id, ordinal)
);
COMMENT ON TABLE accessreq.manual_work_item IS
'the manual provisioning tasks of each item of request_status, in the tenant''s order';
COMMENT ON COLUMN accessreq.manual_work_item.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.manual_work_item.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.manual_work_item.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.manual_work_item.status IS 'PENDING, APPROVED, REJECTED, EXPIRED, CANCELLED, ARCHIVED, or what the tenant adds';
COMMENT ON COLUMN accessreq.manual_work_item.forwarded IS 'whether it was passed on';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_id IS 'whom it was given to first';
COMMENT ON COLUMN accessreq.manual_work_item.original_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_id IS 'who holds it now';
COMMENT ON COLUMN accessreq.manual_work_item.current_owner_name IS 'that one''s name at the time';
COMMENT ON COLUMN accessreq.manual_work_item.modified IS 'when it last changed, by the tenant''s clock';

CREATE TABLE accessreq.state_change (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	observed_at					timestamptz NOT NULL,
	access_request_id			text COLLATE "C",
	old_state					text,
	new_state					text,
	modified					timestamptz,
	run_id						bigint,
	PRIMARY KEY (server, account_activity_item_id, observed_at)
);
COMMENT ON TABLE accessreq.state_change IS
'each observed change of an item''s state, which the tenant itself does not keep; old_state null is the first sight of it';
COMMENT ON COLUMN accessreq.state_change.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.state_change.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.state_change.access_request_id IS 'the access request the item belongs to';
COMMENT ON COLUMN accessreq.state_change.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.state_change.observed_at IS 'when the request was sent that brought it, by this machine''s clock';
COMMENT ON COLUMN accessreq.state_change.old_state IS 'null at first sight';
COMMENT ON COLUMN accessreq.state_change.new_state IS 'the state from then on';
COMMENT ON COLUMN accessreq.state_change.modified IS 'the tenant''s time of the change, where it moved';

CREATE TABLE accessreq.approval_change (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	ordinal						integer NOT NULL,
	observed_at					timestamptz NOT NULL,
	approval_id					text COLLATE "C",
	access_request_id			text COLLATE "C",
	modified					timestamptz,
	old_status					text,
	new_status					text,
	old_owner_id				text COLLATE "C",
	old_owner_name				text,
	new_owner_id				text COLLATE "C",
	new_owner_name				text,
	run_id						bigint,
	PRIMARY KEY (server, account_activity_item_id, ordinal, observed_at)
);
COMMENT ON TABLE accessreq.approval_change IS
'each observed change of an approval''s status or holder; old_status null is the first sight of it';
COMMENT ON COLUMN accessreq.approval_change.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.approval_change.account_activity_item_id IS 'the item of request_status it belongs to';
COMMENT ON COLUMN accessreq.approval_change.access_request_id IS 'the access request the item belongs to';
COMMENT ON COLUMN accessreq.approval_change.ordinal IS 'place in the tenant''s list, from 1';
COMMENT ON COLUMN accessreq.approval_change.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.approval_change.observed_at IS 'when the request was sent that brought it, by this machine''s clock';
COMMENT ON COLUMN accessreq.approval_change.approval_id IS 'the tenant''s id of the approval, where it gives one';
COMMENT ON COLUMN accessreq.approval_change.modified IS 'the tenant''s time of the change';
COMMENT ON COLUMN accessreq.approval_change.old_status IS 'null at first sight';
COMMENT ON COLUMN accessreq.approval_change.new_status IS 'the status from then on';
COMMENT ON COLUMN accessreq.approval_change.old_owner_id IS 'who held it before';
COMMENT ON COLUMN accessreq.approval_change.old_owner_name IS 'that one''s name';
COMMENT ON COLUMN accessreq.approval_change.new_owner_id IS 'who holds it from then on';
COMMENT ON COLUMN accessreq.approval_change.new_owner_name IS 'that one''s name';

CREATE TABLE accessreq.quarantined_item (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	item_hash					bigint NOT NULL,
	run_id						bigint,
	first_seen_at				timestamptz NOT NULL,
	last_seen_at				timestamptz NOT NULL,
	attempts					integer NOT NULL DEFAULT 1,
	error_code					text NOT NULL,
	error						text NOT NULL,
	item						bytea NOT NULL,
	PRIMARY KEY (server, account_activity_item_id, item_hash)
);
COMMENT ON TABLE accessreq.quarantined_item IS
'items that could not be stored, with the reason, so that one bad item never stops a pull; tried again at every full scan';
COMMENT ON COLUMN accessreq.quarantined_item.account_activity_item_id IS 'empty where none could be read';
COMMENT ON COLUMN accessreq.quarantined_item.error_code IS 'SQLSTATE of the error';
COMMENT ON COLUMN accessreq.quarantined_item.item IS 'the bytes as the tenant sent them; convert_from(item, ''UTF8'') where they are text';
COMMENT ON COLUMN accessreq.quarantined_item.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.quarantined_item.item_hash IS 'tells versions of an item apart';
COMMENT ON COLUMN accessreq.quarantined_item.run_id IS 'the pull that saw it, in sync_run; null for refresh()';
COMMENT ON COLUMN accessreq.quarantined_item.first_seen_at IS 'when it was first met';
COMMENT ON COLUMN accessreq.quarantined_item.last_seen_at IS 'when it was last met';
COMMENT ON COLUMN accessreq.quarantined_item.attempts IS 'how often storing it was tried';
COMMENT ON COLUMN accessreq.quarantined_item.error IS 'message of the error';

CREATE TABLE accessreq.missing_candidate (
	server						text COLLATE "C" NOT NULL,
	account_activity_item_id	text COLLATE "C" NOT NULL,
	run_id						bigint NOT NULL,
	PRIMARY KEY (server, account_activity_item_id)
);
COMMENT ON TABLE accessreq.missing_candidate IS
'working table of a full scan: stored rows that the scan did not return; marked missing only at its end';
COMMENT ON COLUMN accessreq.missing_candidate.server IS 'the foreign server (tenant) the row came from';
COMMENT ON COLUMN accessreq.missing_candidate.account_activity_item_id IS 'the stored item';
COMMENT ON COLUMN accessreq.missing_candidate.run_id IS 'the scan that did not return it';

CREATE TABLE accessreq.sync_job (
	server						text COLLATE "C" PRIMARY KEY,
	server_oid					oid,
	owner						text COLLATE "C",
	owner_oid					oid,
	enabled						boolean NOT NULL DEFAULT false,
	every						interval NOT NULL DEFAULT '1 minute',
	reconcile_every				interval NOT NULL DEFAULT '1 day',
	keep						interval,
	keep_raw					boolean NOT NULL DEFAULT true,
	origin						text,
	tenant						text,
	timeline					integer,
	created_watermark			timestamptz,
	modified_watermark			timestamptz,
	null_modified				bigint NOT NULL DEFAULT 0,
	date_form					text,
	last_scan_at				timestamptz,
	next_scan_at				timestamptz,
	first_enabled_at			timestamptz,
	failures					integer NOT NULL DEFAULT 0,
	scan_failures				integer NOT NULL DEFAULT 0,
	rows_short					bigint NOT NULL DEFAULT 0,
	scan_error					text,
	last_success_at				timestamptz,
	next_attempt_at				timestamptz,
	retry_after					timestamptz,
	last_error					text,
	retry_after_of				oid,
	held_at						timestamptz,
	held_by						text COLLATE "C",
	held_by_oid					oid,
	job_id						uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON COLUMN accessreq.sync_job.job_id IS 'which job it is: of one that was forgotten and made anew another';
COMMENT ON TABLE accessreq.sync_job IS
'one row a server that is pulled or has had actions: who owns the job and how it fares';
COMMENT ON COLUMN accessreq.sync_job.owner IS 'the role that pulled first: only its pulls set tenant, last_success_at and failures, and take up an interrupted pull';
COMMENT ON COLUMN accessreq.sync_job.origin IS 'the database this job belongs to (system identifier and database OID); accessreq.check() says when this is another, a copy';
COMMENT ON COLUMN accessreq.sync_job.tenant IS 'the tenant behind the token at the first pull; another one under the same server is an error';
COMMENT ON COLUMN accessreq.sync_job.last_scan_at IS 'when the last full scan that finished began';
COMMENT ON COLUMN accessreq.sync_job.next_scan_at IS 'when the next full scan is due; null: now';
COMMENT ON COLUMN accessreq.sync_job.first_enabled_at IS 'when start_sync() first enabled it; until then another role''s start_sync() takes it over';
COMMENT ON COLUMN accessreq.sync_job.null_modified IS 'how many rows without modified led the tenant''s order in the last cycle: where the next begins';
COMMENT ON COLUMN accessreq.sync_job.date_form IS 'how the tenant takes dates in filters: quoted, bare, or neither (then pulls go by id); null: not known, the next pull asks';
COMMENT ON COLUMN accessreq.sync_job.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_job.owner_oid IS 'OID of that role, which it goes by: owner is its name, as the worker last saw it. In a copy, until accessreq.adopt(), it goes by the name';
COMMENT ON COLUMN accessreq.sync_job.enabled IS 'whether the background worker pulls it';
COMMENT ON COLUMN accessreq.sync_job.every IS 'pause between pulls of what changed';
COMMENT ON COLUMN accessreq.sync_job.reconcile_every IS 'pause between full scans';
COMMENT ON COLUMN accessreq.sync_job.keep IS 'closed items older than this are not kept; null: for ever';
COMMENT ON COLUMN accessreq.sync_job.keep_raw IS 'whether request_status.raw is filled';
COMMENT ON COLUMN accessreq.sync_job.timeline IS 'timeline of the database when the job last ran';
COMMENT ON COLUMN accessreq.sync_job.created_watermark IS 'up to which created new rows are known, by the tenant''s clock';
COMMENT ON COLUMN accessreq.sync_job.modified_watermark IS 'up to which modified changes are known, by the tenant''s clock';
COMMENT ON COLUMN accessreq.sync_job.failures IS 'pulls that failed since the last that did not';
COMMENT ON COLUMN accessreq.sync_job.scan_failures IS 'full scans that failed since the last that did not; one that runs counts until it ends well';
COMMENT ON COLUMN accessreq.sync_job.rows_short IS 'rows that the tenant counted and did not return in the last full scan that ended well; -1: nobody can say';
COMMENT ON COLUMN accessreq.sync_job.scan_error IS 'why the last of them failed';
COMMENT ON COLUMN accessreq.sync_job.last_success_at IS 'when a pull last ended well';
COMMENT ON COLUMN accessreq.sync_job.next_attempt_at IS 'when the worker tries again';
COMMENT ON COLUMN accessreq.sync_job.retry_after IS 'until when the tenant asked to be left alone';
COMMENT ON COLUMN accessreq.sync_job.retry_after_of IS 'OID of the role whose client that was told, where the job has no owner';
COMMENT ON COLUMN accessreq.sync_job.last_error IS 'why the last pull failed; null where it did not';
COMMENT ON COLUMN accessreq.sync_job.held_at IS 'since when actions are held back';
COMMENT ON COLUMN accessreq.sync_job.held_by IS 'who held them back';
COMMENT ON COLUMN accessreq.sync_job.held_by_oid IS 'OID of that role';
COMMENT ON COLUMN accessreq.sync_job.server_oid IS 'OID of the foreign server: tells whether it was renamed, or another has its name';

CREATE TABLE accessreq.sync_run (
	run_id						bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server						text COLLATE "C" NOT NULL,
	owner						text COLLATE "C" NOT NULL,
	owner_oid					oid NOT NULL,
	pid							integer,
	kind						text NOT NULL,
	started						timestamptz NOT NULL,
	finished					timestamptz,
	pages						bigint NOT NULL DEFAULT 0,
	requests					bigint NOT NULL DEFAULT 0,
	rows_seen					bigint NOT NULL DEFAULT 0,
	rows_before					bigint NOT NULL DEFAULT 0,
	rows_total					bigint,
	rows_new					bigint NOT NULL DEFAULT 0,
	rows_changed				bigint NOT NULL DEFAULT 0,
	rows_missing				bigint NOT NULL DEFAULT 0,
	rows_short					bigint NOT NULL DEFAULT 0,
	rows_quarantined			bigint NOT NULL DEFAULT 0,
	replaced_characters			bigint NOT NULL DEFAULT 0,
	rate_limited_waits			bigint NOT NULL DEFAULT 0,
	error						text,
	cursor						jsonb
);
CREATE INDEX sync_run_server_started_idx ON accessreq.sync_run (server, started);
CREATE INDEX sync_run_server_kind_idx ON accessreq.sync_run (server, kind, run_id);
CREATE INDEX sync_run_unfinished_idx ON accessreq.sync_run (server) WHERE finished IS NULL;
COMMENT ON TABLE accessreq.sync_run IS
'one row a pull: what it saw and changed, how it ended, and where it goes on after an interruption';
COMMENT ON COLUMN accessreq.sync_run.pid IS 'process that runs or ran it';
COMMENT ON COLUMN accessreq.sync_run.kind IS 'cycle: what may have changed; full: a scan of everything';
COMMENT ON COLUMN accessreq.sync_run.finished IS 'null while it runs, or when its process ended without a word; the next pull then goes on from its cursor';
COMMENT ON COLUMN accessreq.sync_run.requests IS 'requests to the tenant, tokens and retries included';
COMMENT ON COLUMN accessreq.sync_run.replaced_characters IS 'U+0000 and lone surrogates replaced by U+FFFD, which PostgreSQL cannot store';
COMMENT ON COLUMN accessreq.sync_run.rate_limited_waits IS 'how often it waited because the tenant answered 429';
COMMENT ON COLUMN accessreq.sync_run.error IS 'why it ended early; null for a pull that is complete';
COMMENT ON COLUMN accessreq.sync_run.cursor IS 'where it stands, committed with the rows it stands for';
COMMENT ON COLUMN accessreq.sync_run.run_id IS 'number of the pull';
COMMENT ON COLUMN accessreq.sync_run.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_run.owner IS 'the role with whose mapping it pulls';
COMMENT ON COLUMN accessreq.sync_run.owner_oid IS 'OID of that role';
COMMENT ON COLUMN accessreq.sync_run.started IS 'when it began';
COMMENT ON COLUMN accessreq.sync_run.pages IS 'pages stored';
COMMENT ON COLUMN accessreq.sync_run.rows_seen IS 'items in those pages';
COMMENT ON COLUMN accessreq.sync_run.rows_before IS 'items that the interrupted pulls before it had read, where it takes one up';
COMMENT ON COLUMN accessreq.sync_run.rows_total IS 'items that the tenant has; null while unknown';
COMMENT ON COLUMN accessreq.sync_run.rows_new IS 'rows added';
COMMENT ON COLUMN accessreq.sync_run.rows_changed IS 'rows rewritten';
COMMENT ON COLUMN accessreq.sync_run.rows_missing IS 'rows marked missing';
COMMENT ON COLUMN accessreq.sync_run.rows_short IS 'rows that the tenant counted and did not return, however it was asked, -1 where nobody can say; then nothing was marked missing';
COMMENT ON COLUMN accessreq.sync_run.rows_quarantined IS 'items put into quarantined_item';

-- no CHECK on kind and state, which the extension alone writes: they would be a
-- fifth of the cost of enqueueing
CREATE TABLE accessreq.action (
	id							bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	server						text COLLATE "C" NOT NULL,
	server_oid					oid NOT NULL,
	kind						text NOT NULL,
	request						jsonb NOT NULL,
	owner						text COLLATE "C" NOT NULL,
	enqueued_by					text COLLATE "C" NOT NULL,
	origin						text NOT NULL,
	owner_oid					oid NOT NULL,
	state						text NOT NULL DEFAULT 'queued',
	client_token				uuid,
	dedupe_key					text COLLATE "C",
	not_before					timestamptz,
	attempts					integer NOT NULL DEFAULT 0,
	enqueued_at					timestamptz NOT NULL,
	sent_at						timestamptz,
	settled_at					timestamptz,
	http_status					integer,
	answer						jsonb,
	error						text,
	error_code					text,
	tracking_id					text COLLATE "C",
	access_request_ids			text[] COLLATE "C"
);
-- role and server are their OIDs within the origin, and others' in a copy
CREATE UNIQUE INDEX action_dedupe_key_idx ON accessreq.action (server_oid, dedupe_key, owner_oid, origin)
	WHERE dedupe_key IS NOT NULL
	AND state OPERATOR(pg_catalog.<>) ALL (ARRAY['failed', 'cancelled']::pg_catalog.text[]);
-- what is not settled, as the worker looks for it
CREATE INDEX action_due_idx ON accessreq.action (server, origin, owner_oid, server_oid, state, (coalesce(not_before, enqueued_at)), id)
	WHERE settled_at IS NULL;
-- an access request is cancelled by one action at a time
CREATE UNIQUE INDEX action_cancel_idx ON accessreq.action (server_oid, (access_request_ids[1]), origin)
	WHERE kind OPERATOR(pg_catalog.=) 'cancel' AND settled_at IS NULL;
-- for the order of actions on the same access request, and what has become of it
CREATE INDEX action_request_idx ON accessreq.action USING gin (access_request_ids) WITH (fastupdate = off)
	WHERE kind OPERATOR(pg_catalog.=) ANY (ARRAY['cancel', 'close']::pg_catalog.text[]);
CREATE INDEX action_merge_config_idx ON accessreq.action (server_oid, id)
	WHERE kind OPERATOR(pg_catalog.=) 'merge_config' AND settled_at IS NULL;
CREATE INDEX action_settled_at_idx ON accessreq.action (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX action_trouble_idx ON accessreq.action (server, state)
	WHERE state OPERATOR(pg_catalog.=) ANY (ARRAY['failed', 'unknown']::pg_catalog.text[]);
COMMENT ON TABLE accessreq.action IS
'calls that were enqueued: sent by the worker once their transaction has committed, and what became of them. A reader sees the actions of the roles it is a member of, so a backup needs a superuser or BYPASSRLS';
COMMENT ON COLUMN accessreq.action.id IS 'number of the action, never used again';
COMMENT ON COLUMN accessreq.action.server IS 'the foreign server (tenant) it is for';
COMMENT ON COLUMN accessreq.action.kind IS 'create, cancel, close or merge_config';
COMMENT ON COLUMN accessreq.action.request IS 'what is sent: the API''s own body; for merge_config the patch';
COMMENT ON COLUMN accessreq.action.owner IS 'the role with whose mapping it is sent, by the name that the worker last saw';
COMMENT ON COLUMN accessreq.action.server_oid IS 'OID of the foreign server that it is sent to, whatever its name: one that is created anew with the name is another';
COMMENT ON COLUMN accessreq.action.enqueued_by IS 'the session''s user when it was enqueued';
COMMENT ON COLUMN accessreq.action.origin IS 'the database it belongs to: in a copy it waits for accessreq.adopt()';
COMMENT ON COLUMN accessreq.action.owner_oid IS 'OID of the owner, which it goes by; in a copy, until accessreq.adopt(), it goes by the name';
COMMENT ON COLUMN accessreq.action.state IS 'queued; sending; done: the tenant accepted it; failed: it did not, error says why; unknown: the answer was lost, and while settled_at is null the worker looks whether it was carried out; cancelled by cancel_action()';
COMMENT ON COLUMN accessreq.action.client_token IS 'marks a create, so that it is found again: key accessreq_client_token in the clientMetadata of its items';
COMMENT ON COLUMN accessreq.action.dedupe_key IS 'one action for each key of an owner, unless it failed or was cancelled';
COMMENT ON COLUMN accessreq.action.not_before IS 'not sent before this';
COMMENT ON COLUMN accessreq.action.attempts IS 'how often it was about to be sent; more than once only where the tenant provably did not take it before, or after retry_action()';
COMMENT ON COLUMN accessreq.action.enqueued_at IS 'when it was written, by this machine''s clock';
COMMENT ON COLUMN accessreq.action.sent_at IS 'when it was last sent; null while it is queued';
COMMENT ON COLUMN accessreq.action.settled_at IS 'when its outcome was known, or looking for it given up; null while the worker has something to do';
COMMENT ON COLUMN accessreq.action.http_status IS 'HTTP status of the last answer';
COMMENT ON COLUMN accessreq.action.answer IS 'the tenant''s answer, or where that was lost what was found by looking';
COMMENT ON COLUMN accessreq.action.error IS 'why it failed or is unknown, or why it was not taken yet';
COMMENT ON COLUMN accessreq.action.error_code IS 'SQLSTATE of that error';
COMMENT ON COLUMN accessreq.action.tracking_id IS 'what the tenant''s support asks for';
COMMENT ON COLUMN accessreq.action.access_request_ids IS 'the access requests it is about; of a create those that it made or found open';

ALTER TABLE accessreq.action ENABLE ROW LEVEL SECURITY;

-- lz4 where the server has it (raw takes two thirds of the CPU of pglz, the row
-- as a whole a little less), else the server's default
DO $$
DECLARE
	attribute pg_catalog.name;
BEGIN
	FOR attribute IN
		SELECT a.attname FROM pg_catalog.pg_attribute a
		WHERE a.attrelid OPERATOR(pg_catalog.=) 'accessreq.request_status'::pg_catalog.regclass::pg_catalog.oid
		AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
		AND a.attstorage OPERATOR(pg_catalog.=) ANY (ARRAY['x', 'm']::pg_catalog."char"[])
	LOOP
		EXECUTE pg_catalog.format(
			'ALTER TABLE accessreq.request_status ALTER COLUMN %I SET COMPRESSION lz4', attribute);
	END LOOP;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;

SELECT pg_catalog.pg_extension_config_dump('accessreq.request_status', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.approval', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.phase', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.manual_work_item', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.state_change', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.approval_change', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.quarantined_item', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.missing_candidate', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_job', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_run', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.sync_run_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.action', '');
SELECT pg_catalog.pg_extension_config_dump('accessreq.action_id_seq', '');

-- ---------------------------------------------------------------------------
-- Calls that are sent at once
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.check(server name DEFAULT NULL,
	OUT step text, OUT ok boolean, OUT detail text, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_check'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 15;
COMMENT ON FUNCTION accessreq.check(name) IS
'what works on the way to the tenant, what does not, and what to do; raises for nothing that it tests';

CREATE FUNCTION accessreq.create(request jsonb, server name DEFAULT NULL,
	OUT requested_for text, OUT item_type text, OUT item_id text,
	OUT access_request_ids text[], OUT attributes_hash bigint, OUT existing boolean)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_create'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 10;
COMMENT ON FUNCTION accessreq.create(jsonb, name) IS
'submits an access request (the API''s own body) at once; a rollback does not take it back. The tenant processes it later; access that the person already holds is ignored and never listed. A revoke is for a manager''s direct reports or an ORG_ADMIN, never for oneself, and not for access by role membership or birthright';

CREATE FUNCTION accessreq.grant_request(requested_for text[], item_type text, item_id text,
	comment text DEFAULT NULL, start_date timestamptz DEFAULT NULL, remove_date timestamptz DEFAULT NULL,
	client_metadata jsonb DEFAULT NULL)
RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'accessreq_grant_request'
LANGUAGE C STABLE PARALLEL SAFE ROWS 1;
COMMENT ON FUNCTION accessreq.grant_request(text[], text, text, text, timestamptz, timestamptz, jsonb) IS
'bodies for create() that grant an item to people, one for each 10 people where the item is an ENTITLEMENT, else one; sends nothing';

CREATE FUNCTION accessreq.revoke_request(requested_for text, item_type text, item_id text,
	comment text, remove_date timestamptz DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_revoke_request'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.revoke_request(text, text, text, text, timestamptz) IS
'a body for create() that takes an item from one person; sends nothing. The tenant accepts it from a manager for direct reports or from an ORG_ADMIN, never for oneself, and not for access by role membership or birthright';

CREATE FUNCTION accessreq.cancel(access_request_id text, comment text, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_cancel'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.cancel(text, text, name) IS
'cancels an access request, all its items, at once; a rollback does not take it back. Works only before approval has passed (afterwards: close). Returns the tenant''s answer';

CREATE FUNCTION accessreq.cancel_many(access_request_ids text[], comment text, server name DEFAULT NULL,
	OUT access_request_id text, OUT outcome text, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_cancel_many'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.cancel_many(text[], text, name) IS
'cancels access requests at once, 50 a call where the api has bulk-cancel, else one by one. Works only before approval has passed (afterwards: close). A row an id: accepted, failed, unknown (the answer was lost: look before you send again) or not_sent';

CREATE FUNCTION accessreq.close(access_request_ids text[], message text DEFAULT NULL,
	execution_status text DEFAULT NULL, completion_status text DEFAULT NULL, server name DEFAULT NULL,
	OUT access_request_id text, OUT outcome text, OUT error text, OUT job_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_close'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.close(text[], text, text, text, name) IS
'closes access requests that are stuck, 500 a call; execution_status Terminated (default) or Completed, completion_status Success, Incomplete or Failure (default). accepted means that the tenant will close them: it reports the end in audit events alone, and fires the Provisioning Completed trigger for each request';

CREATE FUNCTION accessreq.status(requested_for text DEFAULT NULL, requested_by text DEFAULT NULL,
	regarding_identity text DEFAULT NULL, assigned_to text DEFAULT NULL, filters text DEFAULT NULL,
	sorters text DEFAULT NULL, request_state text DEFAULT NULL, max_rows bigint DEFAULT NULL,
	page_size integer DEFAULT NULL, row_offset bigint DEFAULT NULL, server name DEFAULT NULL)
RETURNS SETOF accessreq.item_status
AS 'MODULE_PATHNAME', 'accessreq_status'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 250;
COMMENT ON FUNCTION accessreq.status(text, text, text, text, text, text, text, bigint, integer, bigint, name) IS
'statuses as the tenant reports them now, all pages up to max_rows. filters and sorters are the API''s own: filters on accountActivityItemId, created, accessRequestId; sorters created, modified, accountActivityItemId, name, - before one descends; request_state only EXECUTING; requested_for and the like take an identity''s id or me. Requests for access that is already held are never listed. An item comes once; one that has no account_activity_item_id with null. A WARNING where fewer came than the tenant counts';

CREATE FUNCTION accessreq.status_of(access_request_ids text[], server name DEFAULT NULL)
RETURNS SETOF accessreq.item_status
AS 'MODULE_PATHNAME', 'accessreq_status_of'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.status_of(text[], name) IS
'statuses of these access requests as the tenant reports them now, one row an item; no row for an id that the tenant does not list';

CREATE FUNCTION accessreq.count_status(requested_for text DEFAULT NULL, requested_by text DEFAULT NULL,
	regarding_identity text DEFAULT NULL, assigned_to text DEFAULT NULL, filters text DEFAULT NULL,
	request_state text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_count_status'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.count_status(text, text, text, text, text, text, name) IS
'how many statuses the tenant has for these filters (its X-Total-Count); arguments as for status()';

CREATE FUNCTION accessreq.get_config(server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_get_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.get_config(name) IS
'the tenant''s access request configuration; its shape differs by api';

CREATE FUNCTION accessreq.set_config(config jsonb, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_set_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.set_config(jsonb, name) IS
'replaces the whole access request configuration at once and returns what the tenant answers; merge_config() changes parts';

CREATE FUNCTION accessreq.merge_config(patch jsonb, server name DEFAULT NULL)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'accessreq_merge_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION accessreq.merge_config(jsonb, name) IS
'reads the configuration, merges patch into it and puts it back: objects merge, arrays and scalars replace, null is stored, nothing is removed. The API has no ETag: a change made by others between the two is overwritten';

CREATE FUNCTION accessreq.get(path text, query jsonb DEFAULT NULL, max_rows bigint DEFAULT NULL, server name DEFAULT NULL)
RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'accessreq_get'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 250;
COMMENT ON FUNCTION accessreq.get(text, jsonb, bigint, name) IS
'any GET of the tenant''s API: path below base_url with its version (''v2024/identities''), query an object of parameters; a row an element of an array, pages followed, or one row for an object';

-- ---------------------------------------------------------------------------
-- Pulls
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.refresh(access_request_ids text[], server name DEFAULT NULL,
	OUT account_activity_item_id text, OUT access_request_id text, OUT old_state text, OUT new_state text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_refresh'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50;
COMMENT ON FUNCTION accessreq.refresh(text[], name) IS
'reads these access requests from the tenant now and stores them in request_status; a row an item, old_state null where it was not stored yet';

CREATE PROCEDURE accessreq.sync(server name DEFAULT NULL, full_scan boolean DEFAULT false, beside_archive boolean DEFAULT false)
AS 'MODULE_PATHNAME', 'accessreq_sync'
LANGUAGE C;
COMMENT ON PROCEDURE accessreq.sync(name, boolean, boolean) IS
'pulls into request_status and its child tables now: what may have changed, and everything where that is due (at first, once a day, or with full_scan => true). Each page is committed by itself; an interrupted full scan goes on with the windows that are not stored yet. beside_archive: rows of this tenant under a name that no server has any more are an archive, and need not be renamed. Not in a transaction block';

-- ---------------------------------------------------------------------------
-- Pulls from the background
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.start_sync(server name DEFAULT NULL, every interval DEFAULT NULL,
	reconcile_every interval DEFAULT NULL, keep interval DEFAULT NULL, keep_raw boolean DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_start_sync'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.start_sync(name, interval, interval, interval, boolean) IS
'keeps a server fresh from the background, with your user mapping: what changed every so often (at first 1 minute), everything every reconcile_every (1 day); closed items older than keep are neither pulled nor kept (for ever); raw is filled or not (true). Null leaves what is there. Takes effect at commit';

CREATE FUNCTION accessreq.stop_sync(server name DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_stop_sync'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.stop_sync(name) IS
'pulls a server from the background no more; the rows stay, CALL accessreq.sync() still works';

CREATE FUNCTION accessreq.start_worker()
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_start_worker'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.start_worker() IS
'starts the background worker of this database, if none runs, and returns its process id; with accessreq in shared_preload_libraries it is only needed after stop_worker()';

CREATE FUNCTION accessreq.stop_worker()
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_stop_worker'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.stop_worker() IS
'ends the background worker of this database until start_worker() or a restart of the server';

CREATE FUNCTION accessreq.worker(OUT pid integer, OUT state text)
RETURNS record
AS 'MODULE_PATHNAME', 'accessreq_worker'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.worker() IS
'the background worker of this database: its process id, and ''running'' or ''not running: '' and why';

CREATE FUNCTION accessreq.origin()
RETURNS text
AS 'MODULE_PATHNAME', 'accessreq_origin'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.origin() IS
'which database this is, as in sync_job.origin: a copy or a restore is another';

-- Here a role is its OID: another that bears its name by now is a stranger.  The
-- OIDs of a copy are strangers' too, so there it is the name.  Neither raises for
-- a role that is gone.
CREATE POLICY action_of_own_roles ON accessreq.action FOR SELECT
	USING (CASE WHEN origin OPERATOR(pg_catalog.=) (SELECT accessreq.origin())
		THEN pg_catalog.pg_has_role(owner_oid, 'MEMBER')
		ELSE EXISTS (SELECT FROM pg_catalog.pg_roles r
			WHERE r.rolname OPERATOR(pg_catalog.=) action.owner::pg_catalog.name
			AND pg_catalog.pg_has_role(r.oid, 'MEMBER')) END);
COMMENT ON POLICY action_of_own_roles ON accessreq.action IS
'a reader sees the actions of the roles it is a member of';

CREATE FUNCTION accessreq.requests_left(server text, owner oid)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_requests_left'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.requests_left(text, oid) IS
'requests left in the budget of these 10 seconds for the mapping of a role; null where there is no limit or nobody can say';

CREATE FUNCTION accessreq.request_budgets(OUT budget text, OUT purpose text, OUT shared boolean,
	OUT database_oid oid, OUT server_oid oid, OUT role_oid oid, OUT endpoint text, OUT api text,
	OUT client_id text, OUT token_endpoint text, OUT rate_limit integer, OUT used integer, OUT blocked_seconds double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_request_budgets'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.request_budgets() IS
'what accessreq.request_budget shows, without names';

CREATE FUNCTION accessreq.clear_budget(budget text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'accessreq_clear_budget'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.clear_budget(text) IS
'forgets what a budget of accessreq.request_budget has counted, its block and its smallest rate_limit; false where there is none of that name';

CREATE VIEW accessreq.request_budget AS
SELECT s.srvname AS server, d.datname AS database, r.rolname AS role, b.purpose, b.endpoint, b.api, b.client_id, b.token_endpoint, b.shared,
	b.rate_limit, b.used, b.blocked_seconds, b.budget
FROM accessreq.request_budgets() b
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) b.database_oid
LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) b.role_oid
LEFT JOIN pg_catalog.pg_foreign_server s
	ON s.oid OPERATOR(pg_catalog.=) b.server_oid AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
COMMENT ON VIEW accessreq.request_budget IS
'request budgets, and until when tenants told us to stay away, of all databases; without preload those of this session';
COMMENT ON COLUMN accessreq.request_budget.server IS 'the foreign server (tenant) that used it last; null where it is another database''s, or was dropped';
COMMENT ON COLUMN accessreq.request_budget.database IS 'the database that used it last';
COMMENT ON COLUMN accessreq.request_budget.role IS 'the role that used it last, whose own it is where it is not shared';
COMMENT ON COLUMN accessreq.request_budget.purpose IS 'calls, or token: the block of a token endpoint, which counts no requests';
COMMENT ON COLUMN accessreq.request_budget.endpoint IS 'what is called: scheme, host and port';
COMMENT ON COLUMN accessreq.request_budget.api IS 'the API version, each of which has its own';
COMMENT ON COLUMN accessreq.request_budget.client_id IS 'the client; null with a static access_token';
COMMENT ON COLUMN accessreq.request_budget.token_endpoint IS 'who vouches for the client; null with a static access_token';
COMMENT ON COLUMN accessreq.request_budget.shared IS 'true: of all who have been granted a token as this client; false: of the role and the server alone, until that happens';
COMMENT ON COLUMN accessreq.request_budget.rate_limit IS 'requests in 10 seconds: the smallest rate_limit of the servers that shared it in the last minute; null: none was asked for';
COMMENT ON COLUMN accessreq.request_budget.used IS 'requests in the last 10 seconds';
COMMENT ON COLUMN accessreq.request_budget.blocked_seconds IS 'for how long nothing leaves, because the tenant said so; 0: it may';
COMMENT ON COLUMN accessreq.request_budget.budget IS 'its name, for accessreq.clear_budget()';
GRANT SELECT ON accessreq.request_budget TO pg_monitor;
GRANT EXECUTE ON FUNCTION accessreq.request_budgets() TO pg_monitor;

CREATE VIEW accessreq.sync_status AS
SELECT j.server, coalesce(r.rolname::pg_catalog.text, j.owner) AS owner, j.enabled,
	CASE
		WHEN j.origin OPERATOR(pg_catalog.<>) accessreq.origin() THEN 'held'
		WHEN NOT j.enabled OR r.oid IS NULL THEN 'stopped'
		WHEN f.oid IS NULL THEN 'failing'
		WHEN j.last_error IS NOT NULL OR j.scan_error IS NOT NULL THEN 'failing'
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND (j.last_scan_at IS NOT NULL OR w.pid IS NULL) THEN 'late'
		WHEN j.last_scan_at IS NULL OR j.rows_short OPERATOR(pg_catalog.<>) 0 OR EXISTS (SELECT FROM accessreq.quarantined_item q
			WHERE q.server OPERATOR(pg_catalog.=) j.server) THEN 'partial'
		ELSE 'ok'
	END AS health,
	CASE
		WHEN j.origin OPERATOR(pg_catalog.<>) accessreq.origin()
			THEN 'belongs to another database, of which this is a copy: accessreq.adopt()'
		WHEN j.owner IS NULL THEN 'accessreq.start_sync() was never called'
		WHEN r.oid IS NULL
			THEN pg_catalog.format('role "%s" does not exist any more: accessreq.adopt()', j.owner)
		WHEN f.oid IS NULL AND n.oid IS NOT NULL
			THEN pg_catalog.format('server "%s" is "%s" now: accessreq.rename_server(%1$L, %2$L) moves its rows', j.server, n.srvname)
		WHEN f.oid IS NULL
			THEN pg_catalog.format('server "%s" does not exist any more: accessreq.rename_server() moves its rows to another, accessreq.forget() deletes them', j.server)
		WHEN NOT j.enabled AND j.first_enabled_at IS NULL THEN 'accessreq.start_sync() was never called'
		WHEN NOT j.enabled THEN 'stopped by accessreq.stop_sync()'
		WHEN j.last_error IS NOT NULL OR j.scan_error IS NOT NULL THEN coalesce(j.last_error, j.scan_error)
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND w.pid IS NULL
			-- on a standby the worker that matters runs elsewhere, unless nothing comes from there
			AND CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() ELSE true END
			THEN w.state
		WHEN j.lag OPERATOR(pg_catalog.>) j.allowed AND j.last_scan_at IS NOT NULL THEN 'the last pull that ended well is too long ago'
		WHEN j.last_scan_at IS NULL THEN 'the first full scan has not ended'
		WHEN j.rows_short OPERATOR(pg_catalog.<) 0
			THEN 'nobody can say whether the last full scan saw all rows: the tenant''s X-Total-Count cannot be so'
		WHEN j.rows_short OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.format('the tenant counts %s rows more than it returned to the last full scan', j.rows_short)
		WHEN EXISTS (SELECT FROM accessreq.quarantined_item q WHERE q.server OPERATOR(pg_catalog.=) j.server)
			THEN 'accessreq.quarantined_item has items that could not be stored'
	END AS reason,
	pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) j.last_success_at) AS lag_seconds,
	j.last_success_at,
	j.failures OPERATOR(pg_catalog.+) CASE WHEN j.scan_error IS NULL OR j.last_scan_at IS NULL THEN 0 ELSE j.scan_failures END AS failures,
	j.next_attempt_at,
	j.retry_after,
	coalesce(j.last_error, j.scan_error) AS last_error,
	j.last_scan_at,
	j.next_scan_at,
	w.pid AS worker_pid,
	w.state AS worker,
	accessreq.requests_left(j.server, j.owner_oid) AS requests_left
FROM (
	SELECT s.*,
		pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
			coalesce(s.last_success_at, s.first_enabled_at) AS lag,
		-- one pull may be late by another one's length, and a minute is nobody's concern
		s.every OPERATOR(pg_catalog.+) greatest(s.every, '1 minute'::pg_catalog.interval) AS allowed
	FROM accessreq.sync_job s
) j
-- OIDs of a copy are strangers'
LEFT JOIN pg_catalog.pg_roles r
	ON r.oid OPERATOR(pg_catalog.=) j.owner_oid AND j.origin OPERATOR(pg_catalog.=) accessreq.origin()
LEFT JOIN pg_catalog.pg_foreign_server f ON f.srvname OPERATOR(pg_catalog.=) j.server::pg_catalog.name
LEFT JOIN pg_catalog.pg_foreign_server n
	ON n.oid OPERATOR(pg_catalog.=) j.server_oid AND j.origin OPERATOR(pg_catalog.=) accessreq.origin()
CROSS JOIN accessreq.worker() w;
COMMENT ON VIEW accessreq.sync_status IS
'how fresh each server is, and what is wrong where it is not';
COMMENT ON COLUMN accessreq.sync_status.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_status.owner IS 'the role with whose mapping it is pulled';
COMMENT ON COLUMN accessreq.sync_status.enabled IS 'whether the background worker pulls it';
COMMENT ON COLUMN accessreq.sync_status.health IS 'ok; late: the last good pull is too long ago; failing: the last pull failed; partial: rows are missing, because the first full scan has not ended, the tenant returned fewer than it counts, or items are in quarantine; held: it belongs to another database; stopped';
COMMENT ON COLUMN accessreq.sync_status.reason IS 'why it is not ok';
COMMENT ON COLUMN accessreq.sync_status.lag_seconds IS 'seconds since the last pull that ended well; also right on a standby';
COMMENT ON COLUMN accessreq.sync_status.last_success_at IS 'when that was';
COMMENT ON COLUMN accessreq.sync_status.failures IS 'pulls that failed since';
COMMENT ON COLUMN accessreq.sync_status.next_attempt_at IS 'when it is pulled next';
COMMENT ON COLUMN accessreq.sync_status.retry_after IS 'until when the tenant told us to stay away';
COMMENT ON COLUMN accessreq.sync_status.last_error IS 'why the last pull failed, or the last full scan';
COMMENT ON COLUMN accessreq.sync_status.last_scan_at IS 'when the last full scan that ended well began';
COMMENT ON COLUMN accessreq.sync_status.next_scan_at IS 'when the next is due';
COMMENT ON COLUMN accessreq.sync_status.worker_pid IS 'process id of this database''s worker, null where none runs';
COMMENT ON COLUMN accessreq.sync_status.worker IS 'running, or not running and why';
COMMENT ON COLUMN accessreq.sync_status.requests_left IS 'requests left in the budget of these 10 seconds; null where there is no limit, or accessreq is not preloaded';

CREATE VIEW accessreq.sync_progress AS
SELECT p.server, p.run_id, p.kind, p.pid, p.started, p.rows_seen, p.rows_total,
	CASE WHEN p.rows_total OPERATOR(pg_catalog.>) 0 THEN
		pg_catalog.round((100.0 OPERATOR(pg_catalog.*) p.rows_seen) OPERATOR(pg_catalog./) p.rows_total, 1)::pg_catalog.float8
	END AS percent,
	p.rate AS rows_per_second,
	CASE WHEN p.rows_total OPERATOR(pg_catalog.>=) p.rows_seen AND p.rate OPERATOR(pg_catalog.>) 0 THEN
		(p.rows_total OPERATOR(pg_catalog.-) p.rows_seen) OPERATOR(pg_catalog./) p.rate
	END AS seconds_left
FROM (
	SELECT r.server, r.run_id, r.kind, r.pid, r.started,
		r.rows_before OPERATOR(pg_catalog.+) r.rows_seen AS rows_seen, r.rows_total,
		r.rows_seen OPERATOR(pg_catalog./) greatest(pg_catalog.date_part('epoch',
			pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) r.started), 0.001) AS rate
	FROM accessreq.sync_run r
	WHERE r.finished IS NULL
	-- a process that has gone could not say so
	AND EXISTS (SELECT FROM pg_catalog.pg_locks l
		JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) l.database
		JOIN pg_catalog.pg_foreign_server f ON f.oid OPERATOR(pg_catalog.=) l.objid
		WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
		AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
		AND f.srvname OPERATOR(pg_catalog.=) r.server::pg_catalog.name
		AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_server'::pg_catalog.regclass
		AND l.objsubid OPERATOR(pg_catalog.=) 1 AND l.pid OPERATOR(pg_catalog.=) r.pid)
) p;
COMMENT ON VIEW accessreq.sync_progress IS
'pulls under way: how far they are, and how long they will take at this rate. A cycle appears once it has found something new';
COMMENT ON COLUMN accessreq.sync_progress.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.sync_progress.run_id IS 'the run, in accessreq.sync_run';
COMMENT ON COLUMN accessreq.sync_progress.kind IS 'cycle: what may have changed; full: a scan of everything';
COMMENT ON COLUMN accessreq.sync_progress.pid IS 'process that runs it';
COMMENT ON COLUMN accessreq.sync_progress.started IS 'when it began, or was taken up';
COMMENT ON COLUMN accessreq.sync_progress.rows_seen IS 'rows read, those before it was taken up included';
COMMENT ON COLUMN accessreq.sync_progress.rows_total IS 'rows that the tenant has; null while unknown, and for a cycle';
COMMENT ON COLUMN accessreq.sync_progress.percent IS 'of these';
COMMENT ON COLUMN accessreq.sync_progress.rows_per_second IS 'since it began or was taken up';
COMMENT ON COLUMN accessreq.sync_progress.seconds_left IS 'at this rate';

-- ---------------------------------------------------------------------------
-- The queue: calls that belong to your transaction
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.enqueue_create(request jsonb,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_create'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_create(jsonb, timestamptz, text, name) IS
'submits an access request after your transaction has committed, and not if it rolls back; returns the id in accessreq.action. not_before: not sent earlier. dedupe_key: a second call with the same key returns the first one''s id, unless that failed or was cancelled';

CREATE FUNCTION accessreq.enqueue_cancel(access_request_id text, comment text,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_cancel'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_cancel(text, text, timestamptz, text, name) IS
'cancels an access request after your transaction has committed; returns the id in accessreq.action, of the one that is there where the request has a cancel of yours that is not settled yet. not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.enqueue_close(access_request_ids text[], message text DEFAULT NULL,
	execution_status text DEFAULT NULL, completion_status text DEFAULT NULL,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_close'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_close(text[], text, text, text, timestamptz, text, name) IS
'closes 1 to 500 access requests, in one call, after your transaction has committed; arguments as for close(), not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.enqueue_merge_config(patch jsonb,
	not_before timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, server name DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'accessreq_enqueue_merge_config'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION accessreq.enqueue_merge_config(jsonb, timestamptz, text, name) IS
'merges patch into the tenant''s configuration after your transaction has committed: read, merged and put back when it is sent. not_before and dedupe_key as for enqueue_create()';

CREATE FUNCTION accessreq.retry_action(id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_retry_action'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.retry_action(bigint) IS
'has an action that failed or is unknown sent again; of an unknown create it is your decision that the tenant does not have it';

CREATE FUNCTION accessreq.cancel_action(id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'accessreq_cancel_action'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.cancel_action(bigint) IS
'takes an action out of the queue; false where it is not queued any more';

CREATE PROCEDURE accessreq.wait_for_action(id bigint, timeout interval DEFAULT '1 minute', INOUT state text DEFAULT NULL)
AS 'MODULE_PATHNAME', 'accessreq_wait_for_action'
LANGUAGE C;
COMMENT ON PROCEDURE accessreq.wait_for_action(bigint, interval, text) IS
'commits, and waits until an action is settled; its state then, or after timeout. Not in a transaction block';

CREATE FUNCTION accessreq.hold_actions(server name DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_hold_actions'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.hold_actions(name) IS
'sends no more actions of a server, or of every server that you may hold, until release_actions(); returns how many servers that changed. What is on its way at the commit is not called back';

CREATE FUNCTION accessreq.release_actions(server name DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'accessreq_release_actions'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.release_actions(name) IS
'sends the actions again that hold_actions() held; returns how many servers that changed';

CREATE VIEW accessreq.action_queue AS
SELECT j.server,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) ANY (ARRAY['queued', 'sending']::pg_catalog.text[])) AS depth,
	pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) (
		SELECT pg_catalog.min(coalesce(a.not_before, a.enqueued_at)) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) 'queued'
		AND coalesce(a.not_before, a.enqueued_at) OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp())) AS oldest_seconds,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.settled_at IS NULL
		AND a.state OPERATOR(pg_catalog.=) 'queued'
		AND a.not_before OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) AS scheduled,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.state OPERATOR(pg_catalog.=) 'failed') AS failed,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server AND a.state OPERATOR(pg_catalog.=) 'unknown') AS unknown,
	(SELECT pg_catalog.count(*) FROM accessreq.action a
		WHERE a.server OPERATOR(pg_catalog.=) j.server
		AND a.settled_at OPERATOR(pg_catalog.>)
			(pg_catalog.statement_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval)) AS settled_per_minute,
	j.held_at, j.held_by,
	CASE
		WHEN j.origin OPERATOR(pg_catalog.<>) accessreq.origin() THEN 'belongs to another database, of which this is a copy: accessreq.adopt()'
		WHEN j.held_at IS NOT NULL THEN pg_catalog.format('held by accessreq.hold_actions() of role "%s"', j.held_by)
		WHEN w.pid IS NULL THEN w.state
		WHEN pg_catalog.current_setting('accessreq.deliver_actions', true) OPERATOR(pg_catalog.=) 'off' THEN 'accessreq.deliver_actions is off'
	END AS reason
FROM accessreq.sync_job j
CROSS JOIN accessreq.worker() w;
COMMENT ON VIEW accessreq.action_queue IS
'how the queue of each server fares: counts alone, of the actions of all roles';
COMMENT ON COLUMN accessreq.action_queue.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.action_queue.depth IS 'actions that are queued, scheduled ones included, or being sent';
COMMENT ON COLUMN accessreq.action_queue.oldest_seconds IS 'for how long the oldest of those that are due waits; null where none does';
COMMENT ON COLUMN accessreq.action_queue.scheduled IS 'queued ones whose not_before is to come';
COMMENT ON COLUMN accessreq.action_queue.failed IS 'failed ones, as far as accessreq.action_retention keeps them';
COMMENT ON COLUMN accessreq.action_queue.unknown IS 'those of which nobody knows whether the tenant carried them out';
COMMENT ON COLUMN accessreq.action_queue.settled_per_minute IS 'settled in the last minute';
COMMENT ON COLUMN accessreq.action_queue.held_at IS 'since when hold_actions() holds them back';
COMMENT ON COLUMN accessreq.action_queue.held_by IS 'who called it';
COMMENT ON COLUMN accessreq.action_queue.reason IS 'why nothing is sent at all; null where nothing is in the way of that';

-- ---------------------------------------------------------------------------
-- Life of a server
-- ---------------------------------------------------------------------------

CREATE FUNCTION accessreq.adopt(server name)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_adopt'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.adopt(name) IS
'after a restore or a copy: this database is from now on the one that pulls for the server and sends what changes its tenant';

CREATE FUNCTION accessreq.rename_server(old_name name, new_name name)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_rename_server'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.rename_server(name, name) IS
'after ALTER SERVER … RENAME: moves all rows from the old name to the new one';

CREATE FUNCTION accessreq.forget(server name, OUT table_name text, OUT deleted bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'accessreq_forget'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 11;
COMMENT ON FUNCTION accessreq.forget(name) IS
'deletes all rows of a server, which need not exist any more; a row for each table with the number of rows that were deleted';

-- ---------------------------------------------------------------------------
-- Reports.  Names and types are an interface: BI tools bind to them.  They read
-- with the rights of whoever reads.  From here on names and operators are
-- PostgreSQL's own, whatever else is in our schema.
-- ---------------------------------------------------------------------------

SET LOCAL search_path = pg_catalog, pg_temp;

CREATE FUNCTION accessreq.is_open(state text, missing_since timestamptz)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- the words of request_status_open_idx, and of src/tables.h
RETURN missing_since IS NULL AND (state IS NULL OR state <> ALL (ARRAY['REQUEST_COMPLETED', 'CANCELLED',
	'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR']::text[]));
COMMENT ON FUNCTION accessreq.is_open(text, timestamptz) IS
'whether an item with this state, seen by the last full scan, is open: EXECUTING, PROVISIONING_VERIFICATION_PENDING, or a state that is not known yet';

CREATE FUNCTION accessreq.state_label(state text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE state
	WHEN 'EXECUTING' THEN 'Pending'
	WHEN 'REQUEST_COMPLETED' THEN 'Completed'
	WHEN 'CANCELLED' THEN 'Canceled'
	WHEN 'TERMINATED' THEN 'Terminated'
	WHEN 'PROVISIONING_VERIFICATION_PENDING' THEN 'Verification pending'
	WHEN 'REJECTED' THEN 'Denied'
	WHEN 'PROVISIONING_FAILED' THEN 'Provisioning failed'
	WHEN 'NOT_ALL_ITEMS_PROVISIONED' THEN 'Partially provisioned'
	WHEN 'ERROR' THEN 'Error'
	ELSE state END;
COMMENT ON FUNCTION accessreq.state_label(text) IS
'a word for a state, as people see it in the tenant''s pages; the state itself where it is not known';

CREATE FUNCTION accessreq.explain_state(state text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE state
	WHEN 'EXECUTING' THEN 'Under way: the tenant works on it, or it waits for an approval. Which, its phases tell.'
	WHEN 'REQUEST_COMPLETED' THEN 'Completed: the access was granted or taken away.'
	WHEN 'CANCELLED' THEN 'Cancelled before it was approved.'
	WHEN 'TERMINATED' THEN 'Ended before it was complete, as by a close.'
	WHEN 'PROVISIONING_VERIFICATION_PENDING' THEN 'Approved and provisioned; the tenant has yet to see the access in the source.'
	WHEN 'REJECTED' THEN 'An approver said no.'
	WHEN 'PROVISIONING_FAILED' THEN 'Approved, and it could not be provisioned: error_text says why.'
	WHEN 'NOT_ALL_ITEMS_PROVISIONED' THEN 'A part could be provisioned and a part not: error_text says why.'
	WHEN 'ERROR' THEN 'The tenant met an error while it worked on it: error_text says which.'
	ELSE 'Not known to this version of accessreq; it counts as open.' END;
COMMENT ON FUNCTION accessreq.explain_state(text) IS
'what a state means';

CREATE FUNCTION accessreq.parse_time(text)
RETURNS timestamptz
AS 'MODULE_PATHNAME', 'accessreq_parse_time'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.parse_time(text) IS
'a date as the API writes them (ISO 8601, UTC where it has no zone); null where it is none';

-- the approver of an approval, for who asks for one
CREATE INDEX approval_approver_idx ON accessreq.approval ((coalesce(current_owner_id, original_owner_id)));
CREATE INDEX request_status_remove_date_idx ON accessreq.request_status (remove_date) WHERE remove_date IS NOT NULL;
CREATE INDEX phase_executing_idx ON accessreq.phase (started) WHERE state = 'EXECUTING';

CREATE VIEW accessreq.request_item WITH (security_invoker = true) AS
SELECT r.server, r.account_activity_item_id,
	r.server || '/' || r.account_activity_item_id AS row_key,
	r.access_request_id, r.item_id, r.item_name, r.item_type, r.request_type, r.state,
	accessreq.state_label(r.state) AS status_label,
	CASE WHEN r.missing_since IS NOT NULL THEN 'missing'
		WHEN NOT accessreq.is_open(r.state, r.missing_since) THEN 'closed'
		WHEN r.state = 'PROVISIONING_VERIFICATION_PENDING' THEN 'verification'
		ELSE coalesce((SELECT lower(regexp_replace(p.name, '_PHASE$', '')) FROM accessreq.phase p
			WHERE p.server = r.server AND p.account_activity_item_id = r.account_activity_item_id
			AND p.state = 'EXECUTING' ORDER BY p.ordinal LIMIT 1), 'unknown')
	END AS stage,
	accessreq.is_open(r.state, r.missing_since) AS is_open,
	date_part('epoch', CASE WHEN accessreq.is_open(r.state, NULL) THEN statement_timestamp() ELSE c.closed_at END - r.created) / 86400 AS age_days,
	c.closed_at,
	r.requester_id, r.requester_name, r.requested_for_id, r.requested_for_name, r.requester_comment,
	r.created, r.modified, r.start_date, r.remove_date, r.cancelable,
	r.cancel_comment, r.cancelled_at, r.cancelled_by_id, r.cancelled_by_name,
	r.sod_state, nullif(array_to_string(r.sod_policies, '; '), '') AS sod_policies,
	r.description, r.privilege_level, nullif(array_to_string(r.source_names, '; '), '') AS source_names,
	r.error_text, r.client_metadata, r.content_hash, r.first_seen_at, r.changed_at, r.missing_since,
	CASE WHEN accessreq.is_open(r.state, r.missing_since) THEN
		(SELECT string_agg(DISTINCT CASE WHEN a.current_owner_id IS NOT NULL THEN coalesce(a.current_owner_name, a.current_owner_id)
				ELSE coalesce(a.original_owner_name, a.original_owner_id, a.current_owner_name) END, '; ')
			FROM accessreq.approval a WHERE a.server = r.server
			AND a.account_activity_item_id = r.account_activity_item_id AND a.status = 'PENDING')
	END AS current_approvers,
	(SELECT string_agg(DISTINCT coalesce(a.reviewed_by_name, a.reviewed_by_id, a.current_owner_name, a.current_owner_id), '; ')
		FROM accessreq.approval a WHERE a.server = r.server
		AND a.account_activity_item_id = r.account_activity_item_id
		AND a.status = ANY (ARRAY['APPROVED', 'REJECTED'])) AS decided_by,
	(SELECT max(a.modified)
		FROM accessreq.approval a WHERE a.server = r.server
		AND a.account_activity_item_id = r.account_activity_item_id
		AND a.status = ANY (ARRAY['APPROVED', 'REJECTED'])) AS decided_at
FROM accessreq.request_status r
CROSS JOIN LATERAL (SELECT CASE WHEN NOT accessreq.is_open(r.state, NULL) THEN
	coalesce(CASE WHEN r.state = 'CANCELLED' THEN r.cancelled_at END,
		(SELECT max(p.finished) FROM accessreq.phase p
			WHERE p.server = r.server AND p.account_activity_item_id = r.account_activity_item_id),
		r.modified, r.created) END) c (closed_at);
COMMENT ON VIEW accessreq.request_item IS
'one row a requested item, flat: what a BI tool loads first. Needs SELECT on request_status, approval and phase';
COMMENT ON COLUMN accessreq.request_item.row_key IS 'server and account_activity_item_id in one, for tools whose relationships take one column';
COMMENT ON COLUMN accessreq.request_item.status_label IS 'a word for the state';
COMMENT ON COLUMN accessreq.request_item.stage IS 'what it waits in: approval, sod_policy_check, provisioning, verification, or another phase; closed; missing where full scans do not return it any more; unknown where no phase says';
COMMENT ON COLUMN accessreq.request_item.is_open IS 'whether it is open';
COMMENT ON COLUMN accessreq.request_item.age_days IS 'days from created until it was closed, or until now';
COMMENT ON COLUMN accessreq.request_item.closed_at IS 'when it was closed, by the tenant''s clock: cancelled_at of a cancelled one, else when its last phase ended, else modified, else created; null while it is open';
COMMENT ON COLUMN accessreq.request_item.sod_policies IS 'policies for separation of duties that it violates, joined by ''; ''';
COMMENT ON COLUMN accessreq.request_item.source_names IS 'sources of the requested accounts, joined by ''; ''';
COMMENT ON COLUMN accessreq.request_item.current_approvers IS 'who holds its pending approvals, joined by ''; ''; null where nobody does, and where it is closed';
COMMENT ON COLUMN accessreq.request_item.decided_by IS 'who approved or rejected, joined by ''; ''';
COMMENT ON COLUMN accessreq.request_item.decided_at IS 'when the last of them did';

CREATE VIEW accessreq.approval_detail WITH (security_invoker = true) AS
SELECT a.server, a.account_activity_item_id, a.server || '/' || a.account_activity_item_id AS row_key,
	r.access_request_id, a.ordinal, a.approval_id, a.status, a.scheme, a.forwarded,
	a.original_owner_type, a.original_owner_id, a.original_owner_name,
	a.current_owner_type, a.current_owner_id, a.current_owner_name,
	coalesce(a.current_owner_id, a.original_owner_id) AS approver_id,
	CASE WHEN a.current_owner_id IS NOT NULL THEN a.current_owner_name ELSE a.original_owner_name END AS approver_name,
	a.reviewed_by_id, a.reviewed_by_name, a.comment, a.modified, a.remove_date, a.timeout_config, a.error_text,
	a.pending_since,
	a.status = 'PENDING' AND accessreq.is_open(r.state, r.missing_since) AS is_waiting,
	date_part('epoch', CASE
		WHEN a.status = 'PENDING' AND accessreq.is_open(r.state, r.missing_since) THEN statement_timestamp() - a.pending_since
		WHEN a.status = ANY (ARRAY['APPROVED', 'REJECTED']) THEN a.modified - r.created
	END) / 3600 AS duration_hours
FROM accessreq.approval a
JOIN accessreq.request_status r ON r.server = a.server AND r.account_activity_item_id = a.account_activity_item_id;
COMMENT ON VIEW accessreq.approval_detail IS
'one row an approval, with the request it belongs to. Needs SELECT on approval and request_status';
COMMENT ON COLUMN accessreq.approval_detail.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.approval_detail.approver_id IS 'who holds it, or held it at first where nobody does';
COMMENT ON COLUMN accessreq.approval_detail.approver_name IS 'that one''s name';
COMMENT ON COLUMN accessreq.approval_detail.is_waiting IS 'whether somebody is to decide: it is pending, and its item open';
COMMENT ON COLUMN accessreq.approval_detail.duration_hours IS 'hours for which the one who holds it has had it; of a decided one from the item''s creation to the decision';

CREATE VIEW accessreq.phase_detail WITH (security_invoker = true) AS
SELECT p.server, p.account_activity_item_id, p.server || '/' || p.account_activity_item_id AS row_key,
	r.access_request_id, p.ordinal, p.name, p.state, p.result, p.started, p.finished, p.phase_reference,
	date_part('epoch', CASE WHEN p.finished IS NOT NULL THEN p.finished
		WHEN p.state = 'EXECUTING' AND accessreq.is_open(r.state, r.missing_since) THEN statement_timestamp() END - p.started) / 3600 AS duration_hours
FROM accessreq.phase p
JOIN accessreq.request_status r ON r.server = p.server AND r.account_activity_item_id = p.account_activity_item_id;
COMMENT ON VIEW accessreq.phase_detail IS
'one row a phase, with the request it belongs to. Needs SELECT on phase and request_status';
COMMENT ON COLUMN accessreq.phase_detail.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.phase_detail.duration_hours IS 'hours from its start to its end, or until now while it is executing';

CREATE VIEW accessreq.state_history WITH (security_invoker = true) AS
SELECT s.server, s.account_activity_item_id, s.server || '/' || s.account_activity_item_id AS row_key,
	s.access_request_id, s.observed_at, s.old_state, s.new_state, s.modified, s.run_id
FROM accessreq.state_change s;
COMMENT ON VIEW accessreq.state_history IS
'one row an observed change of state; old_state null is the first sight of it. Needs SELECT on state_change';
COMMENT ON COLUMN accessreq.state_history.row_key IS 'of request_item';

CREATE VIEW accessreq.open_item WITH (security_invoker = true) AS
SELECT r.server, r.account_activity_item_id, r.server || '/' || r.account_activity_item_id AS row_key,
	r.access_request_id, r.item_id, r.item_name, r.item_type, r.request_type, r.state,
	accessreq.state_label(r.state) AS status_label,
	CASE WHEN r.state = 'PROVISIONING_VERIFICATION_PENDING' THEN 'verification'
		ELSE coalesce(p.stage, 'unknown') END AS stage,
	p.started AS stage_since,
	r.requester_id, r.requester_name, r.requested_for_id, r.requested_for_name,
	r.created, r.cancelable,
	date_part('epoch', statement_timestamp() - r.created) / 86400 AS age_days,
	a.approvers AS current_approvers,
	a.pending_since,
	coalesce(a.dated, a.pending_since + coalesce(nullif(current_setting('accessreq.approval_expiry', true), ''), '90 days')::interval) AS expires_at,
	CASE WHEN coalesce(a.dated, a.pending_since) IS NOT NULL THEN a.dated IS NULL END AS expiry_estimated
FROM accessreq.request_status r
LEFT JOIN LATERAL (SELECT lower(regexp_replace(x.name, '_PHASE$', '')) AS stage, x.started FROM accessreq.phase x
	WHERE x.server = r.server AND x.account_activity_item_id = r.account_activity_item_id
	AND x.state = 'EXECUTING' ORDER BY x.ordinal LIMIT 1) p ON true
CROSS JOIN LATERAL (SELECT
	string_agg(DISTINCT CASE WHEN x.current_owner_id IS NOT NULL THEN coalesce(x.current_owner_name, x.current_owner_id)
		ELSE coalesce(x.original_owner_name, x.original_owner_id, x.current_owner_name) END, '; ') AS approvers,
	min(x.pending_since) AS pending_since,
	-- the last date in it, at whatever place: its form is the tenant's secret
	min((SELECT max(d.at) FROM jsonb_path_query(x.timeout_config, 'strict $.** ? (@.type() == "string")') v,
		accessreq.parse_time(v #>> '{}') d (at) WHERE coalesce(d.at > x.pending_since, true))) AS dated
	FROM accessreq.approval x WHERE x.server = r.server
	AND x.account_activity_item_id = r.account_activity_item_id AND x.status = 'PENDING') a
WHERE accessreq.is_open(r.state, r.missing_since);
COMMENT ON VIEW accessreq.open_item IS
'one row an open item: how old, what and whom it waits for, when its approval expires. Needs SELECT on request_status, approval and phase';
COMMENT ON COLUMN accessreq.open_item.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.open_item.status_label IS 'a word for the state';
COMMENT ON COLUMN accessreq.open_item.stage IS 'the phase it waits in, as in request_item';
COMMENT ON COLUMN accessreq.open_item.stage_since IS 'when that phase began';
COMMENT ON COLUMN accessreq.open_item.age_days IS 'days since it was created';
COMMENT ON COLUMN accessreq.open_item.current_approvers IS 'who holds its pending approvals, joined by ''; ''';
COMMENT ON COLUMN accessreq.open_item.pending_since IS 'since when the first of them has it';
COMMENT ON COLUMN accessreq.open_item.expires_at IS 'when its approval expires: the last date in its timeout_config, if that is after pending_since, else pending_since and accessreq.approval_expiry (90 days)';
COMMENT ON COLUMN accessreq.open_item.expiry_estimated IS 'whether that is the latter; null where no approval is pending';

CREATE VIEW accessreq.approval_backlog WITH (security_invoker = true) AS
SELECT a.server, coalesce(a.current_owner_id, a.original_owner_id) AS approver_id,
	max(CASE WHEN a.current_owner_id IS NOT NULL THEN a.current_owner_type ELSE a.original_owner_type END) AS approver_type,
	max(CASE WHEN a.current_owner_id IS NOT NULL THEN a.current_owner_name ELSE a.original_owner_name END) AS approver_name,
	count(*) AS waiting,
	min(a.pending_since) AS oldest_since,
	date_part('epoch', statement_timestamp() - min(a.pending_since)) / 86400 AS oldest_days,
	count(*) FILTER (WHERE a.forwarded) AS forwarded
FROM accessreq.approval a
JOIN accessreq.request_status r ON r.server = a.server AND r.account_activity_item_id = a.account_activity_item_id
WHERE a.status = 'PENDING' AND accessreq.is_open(r.state, r.missing_since)
GROUP BY a.server, coalesce(a.current_owner_id, a.original_owner_id);
COMMENT ON VIEW accessreq.approval_backlog IS
'one row an approver with something to decide: the current owner of the approval, or the original one where there is none. Needs SELECT on approval and request_status';
COMMENT ON COLUMN accessreq.approval_backlog.waiting IS 'approvals that wait for him';
COMMENT ON COLUMN accessreq.approval_backlog.oldest_since IS 'since when he has had the oldest';
COMMENT ON COLUMN accessreq.approval_backlog.oldest_days IS 'the same in days';
COMMENT ON COLUMN accessreq.approval_backlog.forwarded IS 'how many of them were passed on to him';

CREATE VIEW accessreq.approval_latency WITH (security_invoker = true) AS
SELECT p.server, date_trunc('week', p.finished) AS week, r.item_type, r.item_id, max(r.item_name) AS item_name,
	count(*) AS items,
	avg(h.hours) AS mean_hours,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY h.hours) AS median_hours,
	percentile_cont(0.9) WITHIN GROUP (ORDER BY h.hours) AS p90_hours,
	max(h.hours) AS max_hours
FROM accessreq.phase p
JOIN accessreq.request_status r ON r.server = p.server AND r.account_activity_item_id = p.account_activity_item_id
CROSS JOIN LATERAL (SELECT date_part('epoch', p.finished - p.started) / 3600) h (hours)
WHERE p.name = 'APPROVAL_PHASE' AND (p.state = 'COMPLETED' OR r.state = 'REJECTED')
AND p.finished IS NOT NULL AND p.started IS NOT NULL
GROUP BY p.server, date_trunc('week', p.finished), r.item_type, r.item_id;
COMMENT ON VIEW accessreq.approval_latency IS
'how long approvals took, by the week in which they ended (from Monday, in the session''s time zone), item type and item: their approval phases that were completed or ended in a rejection, not those that a cancel ended. Needs SELECT on phase and request_status';

CREATE VIEW accessreq.provisioning_time WITH (security_invoker = true) AS
SELECT p.server, date_trunc('week', p.finished) AS week, r.item_type, r.item_id, max(r.item_name) AS item_name,
	count(*) AS items,
	avg(h.hours) AS mean_hours,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY h.hours) AS median_hours,
	percentile_cont(0.9) WITHIN GROUP (ORDER BY h.hours) AS p90_hours,
	max(h.hours) AS max_hours
FROM accessreq.phase p
JOIN accessreq.request_status r ON r.server = p.server AND r.account_activity_item_id = p.account_activity_item_id
CROSS JOIN LATERAL (SELECT date_part('epoch', p.finished - p.started) / 3600) h (hours)
WHERE p.name = 'PROVISIONING_PHASE' AND p.state = 'COMPLETED' AND p.finished IS NOT NULL AND p.started IS NOT NULL
GROUP BY p.server, date_trunc('week', p.finished), r.item_type, r.item_id;
COMMENT ON VIEW accessreq.provisioning_time IS
'how long provisioning took, by the week in which it ended (from Monday, in the session''s time zone), item type and item: their provisioning phases that were completed. Needs SELECT on phase and request_status';

CREATE VIEW accessreq.item_outcome WITH (security_invoker = true) AS
SELECT i.server, date_trunc('week', i.closed_at) AS week, i.item_type,
	count(*) AS closed,
	count(*) FILTER (WHERE i.state = 'REQUEST_COMPLETED') AS completed,
	count(*) FILTER (WHERE i.state = 'REJECTED') AS rejected,
	count(*) FILTER (WHERE i.state = 'CANCELLED') AS cancelled,
	count(*) FILTER (WHERE i.state = 'TERMINATED') AS terminated,
	count(*) FILTER (WHERE i.state = 'PROVISIONING_FAILED') AS provisioning_failed,
	count(*) FILTER (WHERE i.state = 'NOT_ALL_ITEMS_PROVISIONED') AS not_all_provisioned,
	count(*) FILTER (WHERE i.state = 'ERROR') AS error,
	count(*) FILTER (WHERE i.state = 'REJECTED')::float8 / count(*) AS rejection_rate
FROM (
	-- closed_at as in request_item, for all at once
	SELECT r.server, r.item_type, r.state,
		coalesce(CASE WHEN r.state = 'CANCELLED' THEN r.cancelled_at END, p.finished, r.modified, r.created) AS closed_at
	FROM accessreq.request_status r
	LEFT JOIN (SELECT x.server, x.account_activity_item_id, max(x.finished) AS finished
		FROM accessreq.phase x GROUP BY x.server, x.account_activity_item_id) p
		ON p.server = r.server AND p.account_activity_item_id = r.account_activity_item_id
	WHERE NOT accessreq.is_open(r.state, NULL)
) i
GROUP BY i.server, date_trunc('week', i.closed_at), i.item_type;
COMMENT ON VIEW accessreq.item_outcome IS
'how items ended, by the week in which they were closed (from Monday, in the session''s time zone) and item type; those that full scans do not return any more included. Needs SELECT on request_status and phase';
COMMENT ON COLUMN accessreq.item_outcome.closed IS 'all of them';
COMMENT ON COLUMN accessreq.item_outcome.rejection_rate IS 'share of the rejected among all, from 0 to 1';

CREATE VIEW accessreq.provisioning_failure WITH (security_invoker = true) AS
SELECT i.server, nullif(array_to_string(i.source_names, '; '), '') AS source_names, i.error_text,
	count(*) AS items, min(coalesce(i.modified, i.created)) AS first_at, max(coalesce(i.modified, i.created)) AS last_at,
	min(i.server || '/' || i.account_activity_item_id) AS example_row_key
FROM accessreq.request_status i
WHERE i.state = ANY (ARRAY['PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR'])
GROUP BY i.server, nullif(array_to_string(i.source_names, '; '), ''), i.error_text;
COMMENT ON VIEW accessreq.provisioning_failure IS
'what failed and why: items whose provisioning failed, in whole or in part, or that met an error, by sources and error text. Needs SELECT on request_status';
COMMENT ON COLUMN accessreq.provisioning_failure.source_names IS 'sources of the requested accounts, joined by ''; ''';
COMMENT ON COLUMN accessreq.provisioning_failure.error_text IS 'the error messages, each once; null where the tenant says none';
COMMENT ON COLUMN accessreq.provisioning_failure.first_at IS 'when the first of them last changed';
COMMENT ON COLUMN accessreq.provisioning_failure.last_at IS 'when the last of them did';
COMMENT ON COLUMN accessreq.provisioning_failure.example_row_key IS 'one of them, in request_item';

CREATE VIEW accessreq.stuck_item WITH (security_invoker = true) AS
SELECT r.server, r.account_activity_item_id, r.server || '/' || r.account_activity_item_id AS row_key,
	r.access_request_id, r.item_name, r.item_type, r.requested_for_id, r.requested_for_name, r.created,
	p.name AS phase, p.started AS phase_started,
	date_part('epoch', statement_timestamp() - p.started) / 86400 AS executing_days,
	CASE WHEN r.access_request_id IS NULL THEN NULL WHEN r.cancelable THEN 'cancel' WHEN NOT r.cancelable THEN 'close' END AS advice
FROM accessreq.phase p
JOIN accessreq.request_status r ON r.server = p.server AND r.account_activity_item_id = p.account_activity_item_id
WHERE p.state = 'EXECUTING' AND p.started < statement_timestamp() - interval '7 days'
AND accessreq.is_open(r.state, r.missing_since);
COMMENT ON VIEW accessreq.stuck_item IS
'open items in a phase that has been executing for more than 7 days, and what would end them. Needs SELECT on phase and request_status';
COMMENT ON COLUMN accessreq.stuck_item.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.stuck_item.executing_days IS 'for how many days the phase has been executing: filter by it for a longer threshold';
COMMENT ON COLUMN accessreq.stuck_item.advice IS 'cancel, while the tenant takes that; close afterwards (api v3 has none), which ends all items of the access request; null where there is no access_request_id to do it by, or the tenant does not say whether it can be cancelled';

CREATE VIEW accessreq.expiring_access WITH (security_invoker = true) AS
SELECT r.server, r.account_activity_item_id, r.server || '/' || r.account_activity_item_id AS row_key,
	r.access_request_id, r.item_id, r.item_name, r.item_type, r.requested_for_id, r.requested_for_name,
	r.remove_date, date_part('epoch', r.remove_date - statement_timestamp()) / 86400 AS days_left
FROM accessreq.request_status r
WHERE r.remove_date > statement_timestamp() AND r.state = 'REQUEST_COMPLETED'
AND NOT EXISTS (SELECT FROM accessreq.request_status v
	WHERE v.server = r.server AND v.requested_for_id = r.requested_for_id AND v.item_type = r.item_type AND v.item_id = r.item_id
	AND v.state = 'REQUEST_COMPLETED' AND v.created > r.created
	AND (v.request_type = 'REVOKE_ACCESS' OR v.remove_date IS NOT NULL));
COMMENT ON VIEW accessreq.expiring_access IS
'access that ends at a date to come, which the latest request that set or changed it says; not what a later one took away. Needs SELECT on request_status';
COMMENT ON COLUMN accessreq.expiring_access.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.expiring_access.days_left IS 'days until then';

CREATE VIEW accessreq.sod_violation WITH (security_invoker = true) AS
SELECT r.server, r.account_activity_item_id, r.server || '/' || r.account_activity_item_id AS row_key,
	r.access_request_id, r.item_id, r.item_name, r.item_type, r.requested_for_id, r.requested_for_name,
	r.state, accessreq.is_open(r.state, r.missing_since) AS is_open, r.created,
	r.sod_state, nullif(array_to_string(r.sod_policies, '; '), '') AS sod_policies, cardinality(r.sod_policies) AS policies
FROM accessreq.request_status r
WHERE cardinality(r.sod_policies) > 0;
COMMENT ON VIEW accessreq.sod_violation IS
'items that violate policies for separation of duties. Needs SELECT on request_status';
COMMENT ON COLUMN accessreq.sod_violation.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.sod_violation.is_open IS 'whether it is open';
COMMENT ON COLUMN accessreq.sod_violation.sod_policies IS 'the policies'' names, joined by ''; ''';
COMMENT ON COLUMN accessreq.sod_violation.policies IS 'how many they are';

CREATE VIEW accessreq.time_in_state WITH (security_invoker = true) AS
WITH own AS (
	-- by its own dates: when it began, and ended if it was closed when it was first seen
	SELECT r.server, r.account_activity_item_id, r.access_request_id, r.missing_since, f.observed_at, f.new_state,
		coalesce(r.created, p.started, r.modified) AS opened_at,
		CASE WHEN NOT accessreq.is_open(f.new_state, NULL) THEN
			least(f.observed_at, coalesce(CASE WHEN f.new_state = 'CANCELLED' THEN r.cancelled_at END,
				p.finished, r.modified, r.created)) END AS closed_at
	FROM accessreq.request_status r
	CROSS JOIN LATERAL (SELECT min(x.started) AS started, max(x.finished) AS finished FROM accessreq.phase x
		WHERE x.server = r.server AND x.account_activity_item_id = r.account_activity_item_id) p
	JOIN accessreq.state_change f ON f.server = r.server AND f.account_activity_item_id = r.account_activity_item_id
	WHERE f.old_state IS NULL AND f.observed_at = r.first_seen_at
)
SELECT o.server, o.account_activity_item_id, o.server || '/' || o.account_activity_item_id AS row_key,
	o.access_request_id, s.state, s.since, s.until,
	date_part('epoch', coalesce(s.until, statement_timestamp()) - s.since) / 3600 AS hours, s.estimated
FROM own o
CROSS JOIN LATERAL (
	-- open from its beginning to its first sight, or to its own end before that
	SELECT CASE WHEN o.closed_at IS NULL THEN o.new_state ELSE 'EXECUTING' END AS state,
		o.opened_at AS since, coalesce(o.closed_at, o.observed_at) AS until, true AS estimated
	WHERE o.opened_at < coalesce(o.closed_at, o.observed_at)
	UNION ALL
	SELECT o.new_state, o.closed_at, o.observed_at, true WHERE o.closed_at < o.observed_at
	UNION ALL
	SELECT c.new_state, c.observed_at,
		coalesce(lead(c.observed_at) OVER (ORDER BY c.observed_at), o.missing_since), false
	FROM accessreq.state_change c
	WHERE c.server = o.server AND c.account_activity_item_id = o.account_activity_item_id
) s;
COMMENT ON VIEW accessreq.time_in_state IS
'for how long each item was in which state: as observed, and before it was first seen by its own dates. Needs SELECT on request_status, phase and state_change';
COMMENT ON COLUMN accessreq.time_in_state.row_key IS 'of request_item';
COMMENT ON COLUMN accessreq.time_in_state.until IS 'null: it still is, or nobody can say';
COMMENT ON COLUMN accessreq.time_in_state.hours IS 'hours until then, or until now';
COMMENT ON COLUMN accessreq.time_in_state.estimated IS 'whether that is by the item''s own dates: open from its creation, or its first phase where it has no such date, or its last change; closed as closed_at of request_item';

CREATE VIEW accessreq.state_on_day WITH (security_invoker = true) AS
WITH own AS (
	-- as in time_in_state, for all at once
	SELECT r.server, coalesce(r.created, p.started, r.modified) AS opened_at, r.first_seen_at, f.run_id,
		CASE WHEN NOT accessreq.is_open(f.new_state, NULL) THEN
			least(r.first_seen_at, coalesce(CASE WHEN f.new_state = 'CANCELLED' THEN r.cancelled_at END,
				p.finished, r.modified, r.created)) END AS closed_at
	FROM accessreq.request_status r
	LEFT JOIN accessreq.state_change f ON f.server = r.server
		AND f.account_activity_item_id = r.account_activity_item_id AND f.observed_at = r.first_seen_at
	LEFT JOIN (SELECT x.server, x.account_activity_item_id, min(x.started) AS started, max(x.finished) AS finished
		FROM accessreq.phase x GROUP BY x.server, x.account_activity_item_id) p
		ON p.server = r.server AND p.account_activity_item_id = r.account_activity_item_id
), seen AS (
	-- by a pull: refresh() may have been before it
	SELECT o.server, min(o.first_seen_at) FILTER (WHERE o.run_id IS NOT NULL) AS first_at FROM own o GROUP BY o.server
), change AS (
	-- a date that is a mistake makes no series of centuries
	SELECT d.server, greatest(d.at::date, statement_timestamp()::date - 20 * 365) AS day, sum(d.n) AS n
	FROM (
		SELECT o.server, least(o.opened_at, o.first_seen_at, o.closed_at) AS at, 1 AS n FROM own o
		UNION ALL
		SELECT o.server, o.closed_at, -1 FROM own o WHERE o.closed_at IS NOT NULL
		UNION ALL
		-- from its first sight as observed
		SELECT c.server, c.observed_at,
			CASE WHEN accessreq.is_open(c.new_state, NULL) THEN 1 ELSE -1 END
		FROM accessreq.state_change c
		WHERE c.old_state IS NOT NULL
		AND accessreq.is_open(c.old_state, NULL) <> accessreq.is_open(c.new_state, NULL)
		UNION ALL
		-- from a state that was null, which looks like a first sight
		SELECT c.server, c.observed_at, -1
		FROM accessreq.state_change b
		CROSS JOIN LATERAL (SELECT x.server, x.observed_at, x.new_state FROM accessreq.state_change x
			WHERE x.server = b.server AND x.account_activity_item_id = b.account_activity_item_id
			AND x.observed_at > b.observed_at ORDER BY x.observed_at LIMIT 1) c
		WHERE b.new_state IS NULL AND NOT accessreq.is_open(c.new_state, NULL)
		UNION ALL
		SELECT r.server, r.missing_since, -1
		FROM accessreq.request_status r
		WHERE r.missing_since IS NOT NULL AND accessreq.is_open(r.state, NULL)
	) d
	GROUP BY 1, 2
)
SELECT s.server, g.day::date AS day,
	(sum(coalesce(c.n, 0)) OVER (PARTITION BY s.server ORDER BY g.day))::bigint AS open,
	coalesce(g.day::date <= s.first_at::date, true) AS estimated
FROM seen s
CROSS JOIN LATERAL generate_series((SELECT min(x.day) FROM change x WHERE x.server = s.server)::timestamp,
	statement_timestamp()::date::timestamp, interval '1 day') g (day)
LEFT JOIN change c ON c.server = s.server AND c.day = g.day::date;
COMMENT ON VIEW accessreq.state_on_day IS
'how many of the items that are here were open at the end of each day of the last twenty years, in the session''s time zone; those that keep has deleted are in no day''s figure any more. Needs SELECT on request_status, phase and state_change';
COMMENT ON COLUMN accessreq.state_on_day.open IS 'items that were open';
COMMENT ON COLUMN accessreq.state_on_day.estimated IS 'whether that is by the items'' own dates, because nobody looked yet';

COMMENT ON COLUMN accessreq.approval_backlog.approver_id IS 'the approver';
COMMENT ON COLUMN accessreq.approval_backlog.approver_type IS 'IDENTITY or GOVERNANCE_GROUP';
COMMENT ON COLUMN accessreq.approval_backlog.approver_name IS 'his name';
COMMENT ON COLUMN accessreq.provisioning_failure.items IS 'how many';
COMMENT ON COLUMN accessreq.stuck_item.phase IS 'the phase';
COMMENT ON COLUMN accessreq.stuck_item.phase_started IS 'since when it has been executing, by the tenant''s clock';
COMMENT ON COLUMN accessreq.time_in_state.state IS 'the state';
COMMENT ON COLUMN accessreq.time_in_state.since IS 'since when';
COMMENT ON COLUMN accessreq.state_on_day.day IS 'the day';
COMMENT ON COLUMN accessreq.item_outcome.week IS 'Monday of the week in which they were closed';
COMMENT ON COLUMN accessreq.item_outcome.completed IS 'REQUEST_COMPLETED';
COMMENT ON COLUMN accessreq.item_outcome.rejected IS 'REJECTED';
COMMENT ON COLUMN accessreq.item_outcome.cancelled IS 'CANCELLED';
COMMENT ON COLUMN accessreq.item_outcome.terminated IS 'TERMINATED';
COMMENT ON COLUMN accessreq.item_outcome.provisioning_failed IS 'PROVISIONING_FAILED';
COMMENT ON COLUMN accessreq.item_outcome.not_all_provisioned IS 'NOT_ALL_ITEMS_PROVISIONED';
COMMENT ON COLUMN accessreq.item_outcome.error IS 'ERROR';
COMMENT ON COLUMN accessreq.approval_latency.week IS 'Monday of the week in which the phase ended';
COMMENT ON COLUMN accessreq.approval_latency.items IS 'how many phases';
COMMENT ON COLUMN accessreq.approval_latency.mean_hours IS 'their mean length';
COMMENT ON COLUMN accessreq.approval_latency.median_hours IS 'the median';
COMMENT ON COLUMN accessreq.approval_latency.p90_hours IS 'nine of ten were not longer';
COMMENT ON COLUMN accessreq.approval_latency.max_hours IS 'the longest';
COMMENT ON COLUMN accessreq.provisioning_time.week IS 'Monday of the week in which the phase ended';
COMMENT ON COLUMN accessreq.provisioning_time.items IS 'how many phases';
COMMENT ON COLUMN accessreq.provisioning_time.mean_hours IS 'their mean length';
COMMENT ON COLUMN accessreq.provisioning_time.median_hours IS 'the median';
COMMENT ON COLUMN accessreq.provisioning_time.p90_hours IS 'nine of ten were not longer';
COMMENT ON COLUMN accessreq.provisioning_time.max_hours IS 'the longest';

-- a column that only repeats one of a table has that one's comment
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN
		SELECT DISTINCT ON (v.oid, a.attnum) v.relname AS view, a.attname AS column, col_description(t.oid, b.attnum) AS comment
		FROM pg_class v JOIN pg_attribute a ON a.attrelid = v.oid AND a.attnum > 0
		JOIN unnest(ARRAY['approval', 'phase', 'state_change', 'request_status']) WITH ORDINALITY n (name, place) ON true
		JOIN pg_class t ON t.relnamespace = v.relnamespace AND t.relname = n.name
		JOIN pg_attribute b ON b.attrelid = t.oid AND b.attname = a.attname AND b.attnum > 0
		WHERE v.relnamespace = 'accessreq'::regnamespace AND v.relkind = 'v' AND col_description(v.oid, a.attnum) IS NULL
		-- the table that the view is about, then any
		ORDER BY v.oid, a.attnum, (v.relname LIKE n.name || '%') DESC,
			(n.name = 'request_status') DESC, n.place
	LOOP
		EXECUTE format('COMMENT ON COLUMN accessreq.%I.%I IS %L', c.view, c.column, c.comment);
	END LOOP;
END
$$;

-- ---------------------------------------------------------------------------
-- Automation: what the reports show, acted on through the queue
-- ---------------------------------------------------------------------------

CREATE TYPE accessreq.planned_action AS (
	server				text,
	access_request_id	text,
	action_id			bigint,
	reason				text
);
COMMENT ON TYPE accessreq.planned_action IS
'what cancel_stale(), close_stuck() and request_once() did or would do, and why';
COMMENT ON COLUMN accessreq.planned_action.server IS 'the foreign server (tenant)';
COMMENT ON COLUMN accessreq.planned_action.access_request_id IS 'the access request it is about';
COMMENT ON COLUMN accessreq.planned_action.action_id IS 'the action that was enqueued; null in a dry run, and where none was';
COMMENT ON COLUMN accessreq.planned_action.reason IS 'why';

CREATE FUNCTION accessreq.resolve_server(server name)
RETURNS name
AS 'MODULE_PATHNAME', 'accessreq_resolve_server'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION accessreq.resolve_server(name) IS
'the server that is meant where a function''s argument is this: null means accessreq.server, else the only one that you may use';

CREATE FUNCTION accessreq.asks_for(request jsonb, requested_for text, item_type text, item_id text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(request ->> 'requestType', 'GRANT_ACCESS') <> 'REVOKE_ACCESS'
	AND CASE WHEN jsonb_typeof(request -> 'requestedForWithRequestedItems') = 'array' THEN
		EXISTS (SELECT FROM jsonb_path_query(request, 'lax $.requestedForWithRequestedItems[*]') p,
			jsonb_path_query(p, 'lax $.requestedItems[*]') i
			WHERE p ->> 'identityId' = requested_for AND i ->> 'type' = item_type AND i ->> 'id' = item_id)
	ELSE request -> 'requestedFor' ? requested_for
		AND EXISTS (SELECT FROM jsonb_path_query(request, 'lax $.requestedItems[*]') i
			WHERE i ->> 'type' = item_type AND i ->> 'id' = item_id)
	END;
COMMENT ON FUNCTION accessreq.asks_for(jsonb, text, text, text) IS
'whether a body for create() asks for this item for this person';

CREATE FUNCTION accessreq.asked_people(request jsonb)
RETURNS text[]
AS 'MODULE_PATHNAME', 'accessreq_asked_people'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION accessreq.asked_people(jsonb) IS
'the people for whom a body for create() asks';

-- for equal_request()
CREATE INDEX action_person_idx ON accessreq.action USING gin (accessreq.asked_people(request)) WITH (fastupdate = off)
	WHERE kind = 'create' AND state <> ALL (ARRAY['failed', 'cancelled']::text[]);

CREATE FUNCTION accessreq.equal_request(server text, requested_for text, item_type text, item_id text,
	OUT access_request_id text, OUT reason text, OUT not_before timestamptz)
AS 'MODULE_PATHNAME', 'accessreq_equal_request'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.equal_request(text, text, text, text) IS
'for request_once(): what asks for this item for this person already: an open item, or a create of any role that is queued, sending, unknown, or was done and its item has not been pulled yet; nulls where nothing does. What a cancel, a close or a later revoke is taking back does not count; not_before then says when to ask';

CREATE FUNCTION accessreq.acted_requests(server text, kind text)
RETURNS text[]
AS 'MODULE_PATHNAME', 'accessreq_acted_requests'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.acted_requests(text, text) IS
'for cancel_stale() and close_stuck(): access requests that an action of any role is to end and is not settled, was accepted within a day, or is unknown; and those for which the tenant refused one of this kind (cancel or close) within a week';

CREATE FUNCTION accessreq.check_enqueue(kind text, server name, wait boolean)
RETURNS void
AS 'MODULE_PATHNAME', 'accessreq_check_enqueue'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION accessreq.check_enqueue(text, name, boolean) IS
'for who looks before he enqueues: raises what enqueueing a create, cancel or close would because of the server; with wait, transactions that call it so for the same server wait for each other''s end';

CREATE FUNCTION accessreq.usable_servers(server name)
RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT accessreq.resolve_server(usable_servers.server)::text WHERE usable_servers.server IS NOT NULL
	UNION ALL
	SELECT f.srvname::text
	FROM pg_foreign_server f
	JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw AND w.fdwname = 'accessreq'
	WHERE usable_servers.server IS NULL AND has_server_privilege(f.oid, 'USAGE')
	AND EXISTS (SELECT FROM pg_user_mappings m WHERE m.srvid = f.oid
		AND m.umuser = ANY (ARRAY[0::oid, (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)]));
END;
COMMENT ON FUNCTION accessreq.usable_servers(name) IS
'the servers that cancel_stale() and close_stuck() go by: the one that is named, or all that the caller may use and has a user mapping for';

CREATE FUNCTION accessreq.open_items(server text, access_request_id text, OUT n bigint, OUT items text, OUT people text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT count(*), string_agg(DISTINCT coalesce(r.item_name, r.item_id, 'an item'), ', '),
		string_agg(DISTINCT coalesce(r.requested_for_name, r.requested_for_id, 'somebody'), ', ')
	FROM accessreq.request_status r
	WHERE r.server = open_items.server AND r.access_request_id = open_items.access_request_id
	AND accessreq.is_open(r.state, r.missing_since);
END;
COMMENT ON FUNCTION accessreq.open_items(text, text) IS
'for cancel_stale() and close_stuck(): how many items of an access request are open, which, and for whom';

CREATE FUNCTION accessreq.prepare_ending(kind text, older_than interval, max_actions integer, dry_run boolean, server name)
RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	usable text[] := ARRAY(SELECT u FROM accessreq.usable_servers(prepare_ending.server) u ORDER BY u);
	able text[] := '{}';
	why text;
	s text;
BEGIN
	IF older_than IS NULL OR max_actions IS NULL OR dry_run IS NULL THEN
		RAISE null_value_not_allowed USING MESSAGE = 'arguments "older_than", "max_actions" and "dry_run" must not be null';
	END IF;
	IF older_than < interval '0' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'argument "older_than" must not be negative';
	END IF;
	IF max_actions < 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'argument "max_actions" must not be negative';
	END IF;
	IF usable = '{}' THEN
		RAISE undefined_object USING MESSAGE = format('there is no server that role "%s" may use and has a user mapping for', current_user);
	END IF;
	IF NOT dry_run AND current_setting('transaction_read_only')::boolean THEN
		RAISE read_only_sql_transaction USING MESSAGE = 'could not enqueue in a read-only transaction';
	END IF;
	FOREACH s IN ARRAY usable LOOP
		BEGIN
			PERFORM accessreq.check_enqueue(kind, s::name, false);
		EXCEPTION WHEN OTHERS THEN
			-- of all servers, one that is read-only, has no such call, belongs to another
			-- database, or is not set up does not keep the others from it
			IF prepare_ending.server IS NOT NULL OR SQLSTATE <> ALL ('{25006,0A000,55000,42501,HV002,HV00J}') THEN
				RAISE;
			END IF;
			why := SQLERRM;
			RAISE NOTICE 'server "%" is left out: %', s, why;
			CONTINUE;
		END;
		IF NOT dry_run THEN
			-- two that act for real do not choose the same
			PERFORM accessreq.check_enqueue(kind, s::name, true);
		END IF;
		able := able || s;
	END LOOP;
	IF able = '{}' THEN
		RAISE object_not_in_prerequisite_state USING MESSAGE = format('no server takes a %s now', kind), DETAIL = why;
	END IF;
	RETURN able;
END
$$;
COMMENT ON FUNCTION accessreq.prepare_ending(text, interval, integer, boolean, name) IS
'for cancel_stale() and close_stuck(): raises what is wrong with their arguments, and returns the servers they go by. Of all servers those that take no such action now are left out, with a NOTICE; an error where that is every one';

CREATE FUNCTION accessreq.cancel_stale(older_than interval, comment text, max_actions integer DEFAULT 100,
	dry_run boolean DEFAULT true, server name DEFAULT NULL)
RETURNS SETOF accessreq.planned_action
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
	servers text[];
	p accessreq.planned_action;
	r record;
BEGIN
	IF coalesce(cancel_stale.comment, '') = '' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'a cancel needs a comment';
	END IF;
	servers := accessreq.prepare_ending('cancel', older_than, max_actions, dry_run, cancel_stale.server);
	FOR r IN
		WITH acted AS MATERIALIZED (
			SELECT u.server, a.id FROM unnest(servers) u (server), unnest(accessreq.acted_requests(u.server, 'cancel')) a (id)
		), chosen AS (
			SELECT s.server, s.access_request_id, min(s.created) AS created
			FROM accessreq.request_status s
			WHERE s.server = ANY (servers) AND accessreq.is_open(s.state, s.missing_since) AND s.cancelable
			AND s.created < statement_timestamp() - older_than AND s.access_request_id IS NOT NULL
			AND NOT EXISTS (SELECT FROM acted d WHERE d.server = s.server AND d.id = s.access_request_id)
			GROUP BY s.server, s.access_request_id
			ORDER BY min(s.created), s.server, s.access_request_id
			LIMIT max_actions
		)
		SELECT c.server, c.access_request_id, c.created, o.items, o.people
		FROM chosen c
		CROSS JOIN LATERAL accessreq.open_items(c.server, c.access_request_id) o
		ORDER BY c.created, c.server, c.access_request_id
	LOOP
		p := (r.server, r.access_request_id, NULL,
			format('%s for %s: open since %s, and can be cancelled', r.items, r.people, r.created));
		IF NOT dry_run THEN
			BEGIN
				p.action_id := accessreq.enqueue_cancel(r.access_request_id, cancel_stale.comment, server => r.server::name);
			EXCEPTION WHEN unique_violation THEN
				p.reason := SQLERRM;
			END;
		END IF;
		RETURN NEXT p;
	END LOOP;
END
$$;
COMMENT ON FUNCTION accessreq.cancel_stale(interval, text, integer, boolean, name) IS
'cancels access requests through the queue, the oldest first: those with an open item that is cancelable, was created longer ago than older_than, is still returned by full scans, and which no action of any role is to end (acted_requests). A cancel is of all that is open of the request, which the reason names. By default a dry run, that returns what it would do. A server of null: all that you may use and have a user mapping for';

CREATE FUNCTION accessreq.close_stuck(older_than interval, message text, max_actions integer DEFAULT 100,
	dry_run boolean DEFAULT true, server name DEFAULT NULL)
RETURNS SETOF accessreq.planned_action
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
	servers text[] := accessreq.prepare_ending('close', older_than, max_actions, dry_run, close_stuck.server);
	p accessreq.planned_action;
	r record;
BEGIN
	FOR r IN
		WITH acted AS MATERIALIZED (
			SELECT u.server, a.id FROM unnest(servers) u (server), unnest(accessreq.acted_requests(u.server, 'close')) a (id)
		), stuck AS (
			SELECT s.server, s.access_request_id, s.account_activity_item_id,
				min(x.started) AS started, string_agg(DISTINCT x.name, ', ') AS phases
			FROM accessreq.phase x
			JOIN accessreq.request_status s ON s.server = x.server AND s.account_activity_item_id = x.account_activity_item_id
			WHERE x.state = 'EXECUTING' AND x.started < statement_timestamp() - older_than
			AND s.server = ANY (servers) AND accessreq.is_open(s.state, s.missing_since)
			AND NOT s.cancelable AND s.access_request_id IS NOT NULL
			GROUP BY s.server, s.access_request_id, s.account_activity_item_id
		), request AS (
			SELECT k.server, k.access_request_id, min(k.started) AS started,
				string_agg(DISTINCT k.phases, ', ') AS phases, count(*) AS items
			FROM stuck k
			WHERE NOT EXISTS (SELECT FROM acted d WHERE d.server = k.server AND d.id = k.access_request_id)
			GROUP BY k.server, k.access_request_id
		)
		SELECT q.server, q.access_request_id, q.started, q.phases, o.items, o.people
		FROM request q
		CROSS JOIN LATERAL accessreq.open_items(q.server, q.access_request_id) o
		-- a close ends them all, so all that are open have to be stuck
		WHERE o.n = q.items
		ORDER BY q.started, q.server, q.access_request_id
		LIMIT max_actions
	LOOP
		p := (r.server, r.access_request_id, NULL,
			format('%s for %s: %s has been executing since %s, and it cannot be cancelled any more', r.items, r.people, r.phases, r.started));
		IF NOT dry_run THEN
			p.action_id := accessreq.enqueue_close(ARRAY[r.access_request_id], close_stuck.message, server => r.server::name);
		END IF;
		RETURN NEXT p;
	END LOOP;
END
$$;
COMMENT ON FUNCTION accessreq.close_stuck(interval, text, integer, boolean, name) IS
'closes access requests through the queue, those that are stuck for longest first: all their open items are not cancelable any more and have a phase that has been executing for longer than older_than, full scans still return them, and no action of any role is to end the request (acted_requests). By default a dry run, that returns what it would do. A server of null: all that you may use and have a user mapping for';

CREATE FUNCTION accessreq.request_once(requested_for text, item_type text, item_id text, comment text,
	remove_date timestamptz DEFAULT NULL, server name DEFAULT NULL)
RETURNS SETOF accessreq.planned_action
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target text := accessreq.resolve_server(request_once.server);
	body jsonb;
	e record;
	p accessreq.planned_action;
BEGIN
	SELECT b INTO body FROM accessreq.grant_request(ARRAY[request_once.requested_for], request_once.item_type,
		request_once.item_id, request_once.comment, remove_date => request_once.remove_date) b;
	IF body IS NULL THEN
		RAISE null_value_not_allowed USING MESSAGE = 'argument "requested_for" must not be null';
	END IF;
	-- of two sessions at once the second learns of what the first asks for
	PERFORM accessreq.check_enqueue('create', target::name, true);
	SELECT * INTO e FROM accessreq.equal_request(target, request_once.requested_for, request_once.item_type, request_once.item_id);
	p := (target, e.access_request_id, NULL, e.reason);
	IF e.reason IS NULL THEN
		p.reason := CASE WHEN e.not_before IS NULL THEN 'no equal request is open'
			ELSE 'the equal request is being taken back: this is sent a minute later' END;
		p.action_id := accessreq.enqueue_create(body, not_before => e.not_before, server => target::name);
	END IF;
	RETURN NEXT p;
END
$$;
COMMENT ON FUNCTION accessreq.request_once(text, text, text, text, timestamptz, name) IS
'asks for an item for a person through the queue, unless an equal request (same server, person, item and type) is open, or a create of any role asks for it that is queued, sending, unknown, or was done and its item has not been pulled yet. What a cancel, a close or a later revoke is taking back is no equal request; it is then asked a minute later. One row; action_id is null where nothing was enqueued. Made for triggers. Transactions that ask at the same server wait for each other''s end';

CREATE FUNCTION accessreq.dashboard_data(server name DEFAULT NULL)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
-- compiling so many small expressions takes longer than it saves
SET jit = off
BEGIN ATOMIC
SELECT jsonb_build_object(
	'generated_at', statement_timestamp(),
	'servers', (SELECT coalesce(jsonb_agg(DISTINCT r.server), '[]') FROM accessreq.request_status r
		WHERE dashboard_data.server IS NULL OR r.server = dashboard_data.server::text),
	'tiles', (SELECT jsonb_build_object(
		'items', (SELECT count(*) FROM accessreq.request_status r
			WHERE dashboard_data.server IS NULL OR r.server = dashboard_data.server::text),
		'open', count(*),
		'oldest_days', max(o.age_days),
		-- by the tenant's dates or as it was observed: modified may be null, or not move;
		-- what ended or was observed to has changed
		'failed_week', (SELECT count(*) FROM accessreq.request_item r
			WHERE r.state = ANY (ARRAY['PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR'])
			AND r.changed_at > statement_timestamp() - interval '7 days'
			AND (r.closed_at > statement_timestamp() - interval '7 days'
				OR EXISTS (SELECT FROM accessreq.state_change c
					WHERE c.server = r.server AND c.account_activity_item_id = r.account_activity_item_id
					AND c.new_state = r.state AND c.old_state IS NOT NULL
					AND c.observed_at > statement_timestamp() - interval '7 days'))
			AND (dashboard_data.server IS NULL OR r.server = dashboard_data.server::text)),
		-- null where one of them never was pulled
		'lag_seconds', (SELECT CASE WHEN bool_and(j.last_success_at IS NOT NULL) THEN
				max(date_part('epoch', statement_timestamp() - j.last_success_at)) END
			FROM accessreq.sync_job j WHERE j.owner IS NOT NULL
			AND (dashboard_data.server IS NULL OR j.server = dashboard_data.server::text)))
		FROM accessreq.open_item o WHERE dashboard_data.server IS NULL OR o.server = dashboard_data.server::text),
	'open_by_age', (SELECT coalesce(jsonb_agg(jsonb_build_object('age', x.age, 'item_type', x.item_type, 'items', x.items)
			ORDER BY x.n, x.item_type), '[]')
		FROM (SELECT width_bucket(o.age_days, ARRAY[1, 7, 30, 90]::float8[]) AS n,
				(ARRAY['under a day', '1 to 7 days', '7 to 30 days', '30 to 90 days', 'over 90 days'])[
					width_bucket(o.age_days, ARRAY[1, 7, 30, 90]::float8[]) + 1] AS age,
				coalesce(o.item_type, 'none') AS item_type, count(*) AS items
			FROM accessreq.open_item o WHERE o.age_days IS NOT NULL
			AND (dashboard_data.server IS NULL OR o.server = dashboard_data.server::text)
			GROUP BY 1, 2, 3) x),
	'backlog', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.waiting DESC, x.approver), '[]')
		FROM (SELECT coalesce(b.approver_name, b.approver_id, 'nobody') AS approver, b.waiting, b.oldest_days, b.forwarded
			FROM accessreq.approval_backlog b
			WHERE dashboard_data.server IS NULL OR b.server = dashboard_data.server::text
			ORDER BY b.waiting DESC, 1 LIMIT 15) x),
	'latency', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.week), '[]')
		FROM (SELECT date_trunc('week', p.finished)::date AS week, count(*) AS items,
				percentile_cont(0.5) WITHIN GROUP (ORDER BY date_part('epoch', p.finished - p.started) / 3600) AS median_hours,
				percentile_cont(0.9) WITHIN GROUP (ORDER BY date_part('epoch', p.finished - p.started) / 3600) AS p90_hours
			FROM accessreq.phase p
			-- as approval_latency, but that only what was not completed is looked up
			WHERE p.name = 'APPROVAL_PHASE' AND p.started IS NOT NULL AND (p.state = 'COMPLETED' OR EXISTS (
				SELECT FROM accessreq.request_status r WHERE r.server = p.server
				AND r.account_activity_item_id = p.account_activity_item_id AND r.state = 'REJECTED'))
			AND p.finished >= date_trunc('week', statement_timestamp()) - interval '25 weeks'
			AND (dashboard_data.server IS NULL OR p.server = dashboard_data.server::text)
			GROUP BY 1) x),
	'outcomes', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.week), '[]')
		FROM (SELECT o.week::date AS week, sum(o.completed) AS completed, sum(o.rejected) AS rejected,
				sum(o.cancelled) AS cancelled, sum(o.terminated) AS terminated,
				sum(o.provisioning_failed + o.not_all_provisioned + o.error) AS failed
			FROM accessreq.item_outcome o
			WHERE o.week >= date_trunc('week', statement_timestamp()) - interval '25 weeks'
			AND (dashboard_data.server IS NULL OR o.server = dashboard_data.server::text)
			GROUP BY 1) x),
	'approvers', (SELECT count(*) FROM accessreq.approval_backlog b
		WHERE dashboard_data.server IS NULL OR b.server = dashboard_data.server::text),
	'kinds_of_failure', (SELECT count(*) FROM accessreq.provisioning_failure f
		WHERE dashboard_data.server IS NULL OR f.server = dashboard_data.server::text),
	'failures', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.items DESC, x.last_at DESC), '[]')
		FROM (SELECT f.source_names, f.error_text, f.items, f.last_at
			FROM accessreq.provisioning_failure f
			WHERE dashboard_data.server IS NULL OR f.server = dashboard_data.server::text
			ORDER BY f.items DESC, f.last_at DESC LIMIT 15) x),
	-- the 50 of each type that are stuck for longest, and how many there are
	'stuck', (SELECT coalesce(jsonb_agg(to_jsonb(x) - 'place' ORDER BY x.executing_days DESC), '[]')
		FROM (SELECT s.server, s.access_request_id, s.item_name, s.item_type, s.requested_for_name, s.phase, s.executing_days, s.advice,
				count(*) OVER (PARTITION BY s.item_type) AS of_type,
				row_number() OVER (PARTITION BY s.item_type ORDER BY s.executing_days DESC, s.row_key) AS place
			FROM accessreq.stuck_item s
			WHERE dashboard_data.server IS NULL OR s.server = dashboard_data.server::text) x
		WHERE x.place <= 50),
	'open_on_day', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.day), '[]')
		FROM (SELECT d.day, sum(d.open) AS open, bool_or(d.estimated) AS estimated
			FROM accessreq.state_on_day d
			WHERE d.day > statement_timestamp()::date - 180
			AND (dashboard_data.server IS NULL OR d.server = dashboard_data.server::text)
			GROUP BY d.day) x)
);
END;
COMMENT ON FUNCTION accessreq.dashboard_data(name) IS
'what the dashboard shows, in one document; of one server, or null: of all. Its list of servers is empty where nothing was pulled. Needs SELECT on the report views and the tables under them, and on sync_job';

-- ---------------------------------------------------------------------------
-- Who may do what: nothing that calls out is PUBLIC's
-- ---------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
	accessreq.check(name),
	accessreq.create(jsonb, name),
	accessreq.cancel(text, text, name),
	accessreq.cancel_many(text[], text, name),
	accessreq.close(text[], text, text, text, name),
	accessreq.status(text, text, text, text, text, text, text, bigint, integer, bigint, name),
	accessreq.status_of(text[], name),
	accessreq.count_status(text, text, text, text, text, text, name),
	accessreq.get_config(name),
	accessreq.set_config(jsonb, name),
	accessreq.merge_config(jsonb, name),
	accessreq.get(text, jsonb, bigint, name),
	accessreq.refresh(text[], name),
	accessreq.start_sync(name, interval, interval, interval, boolean),
	accessreq.stop_sync(name),
	accessreq.start_worker(),
	accessreq.stop_worker(),
	accessreq.request_budgets(),
	accessreq.clear_budget(text),
	accessreq.enqueue_create(jsonb, timestamptz, text, name),
	accessreq.enqueue_cancel(text, text, timestamptz, text, name),
	accessreq.enqueue_close(text[], text, text, text, timestamptz, text, name),
	accessreq.enqueue_merge_config(jsonb, timestamptz, text, name),
	accessreq.retry_action(bigint),
	accessreq.cancel_action(bigint),
	accessreq.hold_actions(name),
	accessreq.release_actions(name),
	accessreq.adopt(name),
	accessreq.rename_server(name, name),
	accessreq.forget(name),
	accessreq.equal_request(text, text, text, text),
	accessreq.acted_requests(text, text),
	accessreq.cancel_stale(interval, text, integer, boolean, name),
	accessreq.close_stuck(interval, text, integer, boolean, name),
	accessreq.request_once(text, text, text, text, timestamptz, name)
FROM PUBLIC;
REVOKE ALL ON PROCEDURE accessreq.sync(name, boolean, boolean), accessreq.wait_for_action(bigint, interval, text)
FROM PUBLIC;
