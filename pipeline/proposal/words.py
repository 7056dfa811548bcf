"""Words that names of columns and values are made of, in the languages that logs are often written in."""

from __future__ import annotations

from typing import Literal

Role = Literal["user", "item", "time", "label", "weight"]

ROLES: dict[Role, str] = {
    "user": """
    user usr uid customer client consumer member visitor account buyer shopper purchaser reader viewer listener
    player patient student learner subscriber passenger household cookie device person reviewer rater profile
    usuario cliente comprador lector oyente jugador socio utilisateur acheteur abonne lecteur nutzer benutzer
    kunde kaufer leser horer mitglied utente acquirente gebruiker klant anvandare anvandar kund medlem lyssnare
    spelare lasare tittare bruger bruker kayttaja asiakas uzytkownik klient uzivatel zakaznik kullanici musteri
    пользователь клиент покупатель юзер 用户 用戶 使用者 会员 會員 顾客 顧客 客户 客戶 买家 買家 读者 听众 玩家
    ユーザー ユーザ 利用者 사용자 고객 회원 유저 المستخدم उपयोगकर्ता
    """,
    "item": """
    item product movie film article song track music book video game sku stock stockcode asin isbn course recipe
    content listing
    artist album show episode podcast app package merchandise goods restaurant place venue poi news story post ad
    creative offer joke anime manga hotel job beer wine channel playlist program programme producto articulo
    pelicula cancion libro juego curso produto musica livro jogo produit chanson livre jeu produkt artikel lied
    buch spiel ware prodotto articolo brano gioco liedje boek spel vara lat latar bok spar avsnitt vare sang tuote
    kappale kirja piosenka ksiazka urun товар фильм песня книга трек игра продукт 商品 产品 產品 物品 电影 電影
    影片 歌曲 音乐 图书 书籍 视频 影视 应用 應用 游戏 文章 课程 店铺 餐厅 节目 アイテム 映画 曲 本 動画 作品 製品
    상품 아이템 영화 노래 책 제품
    """,
    "time": """
    time timestamp ts date datetime when at created occurred logged visited fecha hora momento tiempo data temps
    heure horodatage zeit datum zeitpunkt zeitstempel ora tijd tijdstip tid tidpunkt tidsstampel klockslag
    tidsstempel dato tidspunkt aika paiva pvm czas zaman tarih время дата 时间 時間 日期 时刻 時刻 日時 日付 시간
    날짜 일시
    """,
    "label": """
    label click clicked clicks rating ratings rate rated overall grade stars star score like liked purchase purchased
    bought buy
    convert converted conversion target feedback response outcome reaction vote action event behavior behaviour
    interaction watched played listened finished completed installed opened puntuacion calificacion valoracion
    clic compra comprado gusta voto nota avaliacao clique note achat achete aime bewertung klick geklickt gekauft
    kauf gefallt valutazione acquisto beoordeling klik gekocht betyg klickade klickad klickat kopt kop kopte
    gillar gillade gillat omdome bedommelse kobt arvosana klikkaus ocena puan оценка рейтинг клик покупка 评分
    評分 点击 點擊 购买 購買 喜欢 喜歡 评价 打分 行为 收藏 标签 評価 クリック 購入 평점 클릭 구매 평가
    """,
    "weight": """
    plays playcount count counts quantity qty times listens views scrobbles weight freq frequency cantidad
    reproducciones veces quantite ecoutes anzahl menge haufigkeit antal spelningar lyssningar visningar quantita
    aantal количество 次数 数量 播放 播放量 回数 횟수 수량
    """,
}

# Words beside a role's that make no other thing of it: user_id, the number of the customer.
IDS = """
    code codigo de del el epoch event guid hash id identifiant identificador ids is kennung key kod la ms no nr
    num number numero nummer of sec seconds the unix utc uuid value was идентификатор номер 号 是否 番号 編號 编号
    编码 번호
"""

# Words that make a name one of a property: user_age, item_title.
PROPERTIES = """
    age alder edad idade alter eta leeftijd name namn nombre nom nome naam gender sex kon genero sexo geschlecht
    title titel titulo titre titolo type typ tipo kind category categoria kategori kategorie genre country land
    pais pays city stad ciudad ville stadt region zip postal price pris precio prix preis prezzo prijs year ar ano
    annee jahr birth born fodd release released published launch signup joined join registered registration expiry
    description url avg mean average total brand marke marca length duration segment group status level language
    lang plan tier возраст имя пол название город цена год 年龄 年齡 性别 性別 姓名 名称 名稱 名 标题 標題 类型
    類型 类别 类目 品类 分类 地区 国家 城市 年份 价格 生日 出生 上映 注册 発売 年齢 名前 タイトル 나이 성별 이름
    제목 가격
"""

# What people call an item.
TITLES = """
    title name titulo titre titolo titel nombre namn nom nome naam rubrik bezeichnung название 名称 名稱 标题 標題
    片名 书名 歌名 タイトル 題名 제목
"""

# Codes, whose numbers mean no amount.
CODES = """
    id code kod codigo zip zipcode postal postcode plz postnummer city stad ciudad ville stadt region state
    province area category cat kategori categoria kategorie type typ tipo class group segment genre channel brand
    store shop country land pais device os browser campaign 城市 地区 类别 类目 品类 编号 编码 邮编 省份
"""

# The words for yes, the one that tells the most first.
POSITIVES = """
    purchase purchased buy bought transaction order ordered convert converted conversion compra comprado kop kopt
    kauf gekauft achat achete 购买 购买了 購入 구매 покупка like liked love favorite fav gilla gillar gillat gusta
    喜欢 收藏 cart addtocart add_to_cart click clicked klick clic clique 点击 點擊 クリック 클릭 клик play played
    listen watch watched positive pos good 1 y yes true t ja si sim oui да 是 はい 예
"""
