/*
 * answer.c
 *
 * An answer while it is being put together, and the shapes in which the
 * tenant and the gateway before it report errors.
 */
#include "sandbox.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void
answer_header(Answer *a, const char *name, const char *value)
{
	for (int i = 0; i < a->nheaders; i++)
		if (strcasecmp(a->headers[i].name, name) == 0)
		{
			free(a->headers[i].value);
			a->headers[i].value = xstrdup(value);
			return;
		}
	if (a->nheaders < MAX_HEADERS)
		a->headers[a->nheaders++] = (Header) {xstrdup(name), xstrdup(value)};
}

/* Takes the body away, not the headers. */
void
answer_clear(Answer *a)
{
	text_free(&a->body);
	for (size_t i = 0; i < a->nitems; i++)
		blob_unref(a->items[i]);
	free(a->items);
	a->items = NULL;
	a->nitems = 0;
}

void
answer_free(Answer *a)
{
	answer_clear(a);
	for (int i = 0; i < a->nheaders; i++)
	{
		free(a->headers[i].name);
		free(a->headers[i].value);
	}
	a->nheaders = 0;
}

/* The body's length; a page is its items, joined by commas, in brackets. */
size_t
answer_length(const Answer *a)
{
	size_t		len = 2;

	if (a->items == NULL)
		return a->body.len;
	for (size_t i = 0; i < a->nitems; i++)
		len += a->items[i]->len - (i == 0);
	return len;
}

const char *
status_words(int status)
{
	switch (status)
	{
		case 400:
			return "400.1 Bad Request Content";
		case 403:
			return "403 Forbidden";
		case 404:
			return "404 Not found";
		case 405:
			return "405 Method Not Allowed";
		case 413:
			return "413 Content Too Large";
		case 415:
			return "415 Unsupported Media Type";
		case 429:
			return "429 Too Many Requests";
		case 500:
			return "500.0 Internal Fault";
		case 502:
			return "502 Bad Gateway";
		case 503:
			return "503 Service Unavailable";
		case 504:
			return "504 Gateway Timeout";
		default:
			return "Error";
	}
}

static const char *
general_words_german(int status)
{
	switch (status)
	{
		case 400:
			return "Die Anfrage ist ungültig: ";
		case 403:
			return "Nicht erlaubt: ";
		case 404:
			return "Nicht gefunden: ";
		default:
			return "Fehler: ";
	}
}

/* The tenant's own shape: every message twice, in two locales. */
void
answer_error(Answer *a, int status, const char *format,...)
{
	char		text[1024];
	va_list		args;
	char		tracking[33];
	Text	   *t = &a->body;
	Text		german = {0};

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	answer_clear(a);
	a->status = status;
	a->content_type = "application/json";
	new_id(tracking);
	answer_header(a, "SLPT-Request-ID", tracking);
	text_puts(&german, general_words_german(status));
	text_puts(&german, text);
	text_printf(t, "{\"detailCode\":\"%s\",\"trackingId\":\"%s\",\"messages\":["
				"{\"locale\":\"en-US\",\"localeOrigin\":\"DEFAULT\",\"text\":",
				status_words(status), tracking);
	text_json(t, text, JSON_PLAIN);
	text_puts(t, "},{\"locale\":\"de-DE\",\"localeOrigin\":\"REQUEST\",\"text\":");
	text_json(t, german.data, JSON_PLAIN);
	text_puts(t, "}],\"causes\":[]}");
	text_free(&german);
}

/* What a gateway says in front of the tenant. */
void
answer_html(Answer *a, int status)
{
	answer_clear(a);
	a->status = status;
	a->content_type = "text/html";
	text_printf(&a->body, "<html>\r\n<head><title>%d</title></head>\r\n<body>\r\n<center><h1>%s</h1>"
				"</center>\r\n<hr><center>gateway</center>\r\n</body>\r\n</html>\r\n",
				status, status == 414 ? "414 Request-URI Too Large" :
				status < 300 ? "We are down for maintenance" : status_words(status));
}

/* Frees json. */
void
answer_json(Answer *a, int status, cJSON *json)
{
	char	   *s = cJSON_PrintUnformatted(json);

	answer_clear(a);
	a->status = status;
	a->content_type = "application/json";
	if (s)
		text_puts(&a->body, s);
	cJSON_free(s);
	cJSON_Delete(json);
}
