// A server of many paths, as one writes it for a fetch event; runs as a component.

const paths = {
  "/": () => new Response("hello from JavaScript\n", { headers: { "content-type": "text/plain" } }),

  "/about": (request) =>
    Response.json({
      method: request.method,
      url: request.url,
      headers: [...request.headers],
      random: crypto.randomUUID(),
      now: Date.now(),
    }),

  "/echo": (request) => new Response(request.body, { headers: { "x-type": request.headers.get("content-type") } }),

  "/json": async (request) => Response.json({ sum: (await request.json()).reduce((a, b) => a + b) }, { status: 201 }),

  // A line each so many milliseconds.
  "/ticks": (_request, query) => {
    let number = 0;
    const pull = async (controller) => {
      await new Promise((done) => setTimeout(done, Number(query.get("every"))));
      controller.enqueue(new TextEncoder().encode(`${number++}\n`));
      if (number === Number(query.get("number"))) controller.close();
    };
    return new Response(new ReadableStream({ pull }));
  },

  // Ask another server, and pass its answer on.
  "/ask": async (request, query) => {
    try {
      const answer = await fetch(query.get("url"), { method: request.method, body: request.body, headers: { "x-asked-by": "JavaScript" } });
      return new Response(answer.body, { status: answer.status, headers: { "x-passed-on": "yes" } });
    } catch (error) {
      return new Response(String(error), { status: 502 });
    }
  },

  "/say": () => {
    console.log("to stdout");
    console.error("to stderr");
    return new Response("said");
  },

  "/throw": () => {
    throw new Error("on purpose");
  },

  "/spin": () => {
    for (;;);
  },
};

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname, searchParams } = new URL(request.url);
  const handler = paths[pathname];
  return handler ? handler(request, searchParams) : new Response("no such path", { status: 404 });
}
