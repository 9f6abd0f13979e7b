// A Spin application in JavaScript, as Spin's templates begin: itty-router, and packages that bring WIT along.
import { infer } from "@spinframework/spin-llm";
import { AutoRouter } from "itty-router";

const router = AutoRouter();

router
  .get("/", () => new Response("hello from Spin in JavaScript\n"))
  .get("/hello/:name", ({ params }) => ({ hello: params.name }))
  .get("/about", ({ headers, url }) => ({ url, route: headers.get("spin-component-route"), path: headers.get("spin-path-info") }))
  .post("/shout", async (request) => new Response((await request.text()).toUpperCase()))
  .get("/fetch/:address+", async ({ params }) => {
    const answer = await fetch(`http://${params.address}`);
    return new Response(await answer.text(), { status: answer.status });
  })
  .get("/infer/:model", ({ params }) => {
    try {
      return { text: infer(params.model, "hi").text };
    } catch (error) {
      return { error: error.payload };
    }
  });

addEventListener("fetch", (event) => event.respondWith(router.fetch(event.request)));
