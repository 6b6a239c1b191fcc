/* In grpc.c's place in a build without gRPC. */
#include "serve/grpc.h"

pal_status pal__grpc_start(pal__service *service, const pal__grpc_options *options, pal__grpc **out,
			   pal_error *err)
{
	(void)service, (void)options, (void)out;
	return pal__fail(err, PAL_EUNSUPPORTED, "this build of pal has no gRPC");
}

int pal__grpc_port(const pal__grpc *g)
{
	(void)g;
	return 0;
}

void pal__grpc_stop(pal__grpc *g, double wait_s)
{
	(void)g, (void)wait_s;
}
